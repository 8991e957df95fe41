"""A model inside a page: one HTML file that writes with it in a browser, without a server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch

from flowlm.core.clock import INTERVALS
from flowlm.errors import Refusal
from flowlm.experiment import to_json
from flowlm.files import new_file
from flowlm.hub.names import SHIPPED
from flowlm.model.export import require_flow
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.model.weights import Weights
from flowlm.page.alone import page_alone

INPUTS = {"PosteriorInput": "posterior", "BayesInput": "bayes"}
SAMPLERS = ("Jumps", "Euler")
SETTINGS = ("temperature", "gamma")
"""Of a sampler, that the page changes."""

LARGEST = 2**24
"""Most parameters, and most numbers of a state: a file of 45 MB, and seconds a step."""
SMALLEST = 16
"""Fewest numbers of a state: fewer are drawn in another way."""


def export_page(name: str | Path, file: Path, tokenizer: str | None = None) -> None:
    """Write the page of a model by its name; a Refusal if it is not one that the page runs.

    `file` is new, and appears when it is complete.
    """
    model = load(name, "cpu", tokenizer=tokenizer)
    page = page_of(model, str(name) if name in SHIPPED else model.experiment.name)
    with new_file(file) as target:
        target.write(page)


def page_of(model: LanguageModel, name: str) -> str:
    """The page as text, with the model under this name."""
    return page_alone(name, facts_of(model, name), packed(model.weights))


def facts_of(model: LanguageModel, name: str) -> str:
    """The JSON that the engine reads of a model besides its weights (page/engine/model.js)."""
    told = json.loads(to_json(model.experiment))
    require_runs(told, model)
    tokenizer = model.parts.require_tokenizer("a page has no words for it")
    vocab = model.network.vocab
    facts: dict[str, Any] = {
        "about": {
            "id": name, "method": model.experiment.method.label, "length": model.length,
            "parameters": sum(p.numel() for p in model.network.parameters()),
            "usual_steps": model.experiment.method.usual_steps,
            "settings": [name for name in SETTINGS if name in told["sampler"]],
        },
        # Neither teacher nor data: a page tells no paths.
        "method": {key: told["method"][key] for key in ("kind", "input", "clock")},
        "sampler": told["sampler"], "size": told["size"],
        "length": model.length, "vocab": vocab,
        "words": [tokenizer.decode([token]) for token in range(vocab)],
        "clock": _clock(model) if told["method"]["clock"] == "decoding" else None,
        "shapes": [(key, weight.numel()) for key, weight in model.weights.items()],
    }  # fmt: skip
    return json.dumps(facts, ensure_ascii=False)


def require_runs(told: dict[str, Any], model: LanguageModel) -> None:
    """Refuse a model that the engine does not run; `told` is its experiment as JSON."""
    require_flow(told["method"], "A page runs", INPUTS, " or ".join(INPUTS.values()))
    sampler = told["sampler"]["kind"]
    if sampler not in SAMPLERS:
        raise Refusal(
            f"A page writes with the samplers {' and '.join(SAMPLERS)}, and this model with "
            f"{sampler}: serve it with flowlm serve."
        )
    state = model.length * model.network.vocab
    count = max(state, sum(p.numel() for p in model.network.parameters()))
    if count > LARGEST:
        raise Refusal(
            f"A page holds at most {LARGEST:,} parameters, and as many numbers of length times "
            f"vocabulary; this model has {count:,}: serve it with flowlm serve."
        )
    if state < SMALLEST:
        raise Refusal(
            f"A page needs length times vocabulary of at least {SMALLEST}, and this model has "
            f"{state}: take longer texts."
        )


def packed(weights: Weights) -> str:
    """All weights as float16 in base64, one after the other; a Refusal of what float16 lacks."""
    flat = torch.cat([weight.detach().float().flatten() for weight in weights.values()])
    if not bool((flat.abs() <= torch.finfo(torch.float16).max).all()):
        raise Refusal("This model has weights that float16 cannot hold, so no page can carry it.")
    return _base64(flat.half().cpu().numpy().astype("<f2").tobytes())


def _clock(model: LanguageModel) -> str:
    """Clock times at even steps of t, float32 in base64: the table that the clock reads."""
    clock = model.experiment.method.time(model.network.vocab)
    assert clock is not None
    taus = clock.tau(torch.linspace(0, 1, INTERVALS + 1)[None])
    return _base64(taus.numpy().astype("<f4").tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
