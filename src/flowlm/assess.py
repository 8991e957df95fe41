"""Judge a trained model: quality and diversity by number of steps, beside controls."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from flowlm import __version__
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Batch, Tokens
from flowlm.data.language import demo_language
from flowlm.data.tokens import is_prepared
from flowlm.directory import fingerprint
from flowlm.errors import Refusal
from flowlm.evaluate.controls import draw_marginals, marginals_valid
from flowlm.evaluate.diversity import sample_entropy, unique_share
from flowlm.evaluate.likelihood import mean_nll
from flowlm.evaluate.quality import heard_nll, valid_share
from flowlm.evaluate.report import write_report
from flowlm.experiment import Generated, Text
from flowlm.files import write_text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.model import LanguageModel
from flowlm.sampling import unmask
from flowlm.source import open_source

FULL = 32
"""Steps of the row "full": more than the words of the demo's sentences."""

Steps = int | Literal["full"]
"""Network evaluations of a sampler; "full" for enough of them."""


def method_name(model: LanguageModel) -> str:
    """The name in tables and plots."""
    match model.experiment.method:
        case Flow():
            return "FLM"
        case FlowMap():
            return "FMLM"
        case Autoregressive():
            return "Autoregressive"
        case _:
            return "Masked diffusion"


def rows(
    model: LanguageModel,
    steps: Sequence[Steps],
    num: int,
    seed: int,
    judge: LanguageModel | None = None,
) -> list[dict[str, Any]]:
    """One row of figures for each number of steps, from `num` texts each.

    On the generated language quality is exact (share valid, nats per token). On other text it is
    nats per token under `judge`, an autoregressive model with the same tokenizer, if there is one.
    An autoregressive model has one row: it takes as many evaluations as a text has tokens.
    """
    if isinstance(model.experiment.method, Autoregressive):
        steps = ["full"]
    enough = model.length if isinstance(model.experiment.method, Autoregressive) else FULL
    table = []
    for wanted in steps:
        count = enough if wanted == "full" else wanted
        began = time.perf_counter()
        tokens = model.sample(num, count, seed)
        row: dict[str, Any] = {
            "method": method_name(model),
            "steps": wanted,
            "evaluations": count,
            "seconds": (time.perf_counter() - began) / num,
        }
        table.append(row | _diversity(tokens) | _quality(model, tokens, judge))
    return table


def reference(num: int, seed: int) -> dict[str, float]:
    """The demo's language itself, and a writer who knows its words but not how they depend."""
    language, _ = demo_language()
    true = language.sample(Streams.of(seed, 2, count=num))
    independent = draw_marginals(language, Streams.of(seed, 3, count=num))
    return {
        "entropy": language.entropy,
        "valid": valid_share(language, true),
        "nll": heard_nll(language, true),
        "sample_entropy": sample_entropy(true),
        "unique": unique_share(true),
        "marginals_valid": marginals_valid(language),
        "marginals_nll": heard_nll(language, independent),
        "marginals_sample_entropy": sample_entropy(independent),
    }


def perfect_masked_rows(steps: Sequence[int], num: int, seed: int) -> list[dict[str, Any]]:
    """What masked diffusion writes with the language's exact posterior in place of a network.

    No training reaches further: what is missing is lost by drawing the words of a step
    independently of each other.
    """
    language, _ = demo_language()
    prompt = torch.full((num, language.length), FREE)
    table = []
    for count in steps:
        rng = Streams.of(seed, count=num)
        # The slip matters after a contradiction only; the text is invalid by then.
        predict = partial(language.unmasker, mask_id=language.vocab, slip=1e-6)
        *_, tokens = unmask(predict, prompt, language.vocab, count, rng)
        table.append(
            {"method": "Masked, perfect", "steps": count, "evaluations": count}
            | _diversity(tokens)
            | _exact_quality(tokens)
        )
    return table


def samples(model: LanguageModel, steps: int, num: int, seed: int) -> list[dict[str, Any]]:
    """Texts, each with whether it is valid where that can be told."""
    tokens = model.sample(num, steps, seed)
    assert model.tokenizer is not None
    texts = [model.tokenizer.decode(row) for row in tokens.tolist()]
    if isinstance(model.experiment.data, Generated):
        valid = demo_language()[0].valid(tokens).tolist()
        return [{"text": text, "valid": ok} for text, ok in zip(texts, valid)]
    return [{"text": text} for text in texts]


@torch.no_grad()
def film(model: LanguageModel, steps: int, seed: int) -> dict[str, Any]:
    """One text on its way from noise: at each time the likeliest tokens and their probability."""
    method = model.experiment.method
    if not isinstance(method, Continuous) or model.tokenizer is None:
        raise Refusal("A film with confidences needs a flow or a flow map with a tokenizer.")
    prompt = torch.full((1, model.length), FREE)
    frames = []
    for frame in method.frames(model.network, prompt, steps, Streams.of(seed, count=1)):
        confidence, best = frame.prediction.log_probs()[0].exp().max(-1)
        words = [model.tokenizer.decode([token]) for token in best.tolist()]
        frames.append(
            {"time": float(frame.tau[0, 0]), "words": words} | {"confidence": confidence.tolist()}
        )
    title = f"{method_name(model)}, {steps} steps: at each place the likeliest word."
    return {"title": title, "frames": frames}


def _diversity(tokens: Tokens) -> dict[str, float]:
    return {
        "samples": len(tokens),
        "sample_entropy": sample_entropy(tokens),
        "unique": unique_share(tokens),
    }


def _exact_quality(tokens: Tokens) -> dict[str, float]:
    language, _ = demo_language()
    return {"valid": valid_share(language, tokens), "nll": heard_nll(language, tokens)}


def _quality(model: LanguageModel, tokens: Tokens, judge: LanguageModel | None) -> dict[str, float]:
    if isinstance(model.experiment.data, Generated):
        return _exact_quality(tokens)
    if judge is None:
        return {}
    if not isinstance(judge.experiment.method, Autoregressive):
        raise Refusal("The judge must be an autoregressive run: it needs exact likelihoods.")
    theirs, own = judge.tokenizer, model.tokenizer
    if theirs is None or own is None or theirs.fingerprint != own.fingerprint:
        raise Refusal("The judge has another tokenizer: give a run trained on the same text.")
    if judge.length < tokens.shape[1]:
        raise Refusal(f"The judge reads {judge.length} tokens, the texts have {tokens.shape[1]}.")
    method, network = judge.experiment.method, judge.network
    batches = [Batch(part, torch.ones(part.shape)) for part in tokens.split(32)]
    value = mean_nll(lambda batch, rng: method.nll(network, batch, rng), batches)
    assert value is not None
    return {"nll": value}


def assess(
    model: LanguageModel,
    run: str,
    out: Path,
    steps: Sequence[Steps],
    num: int,
    seed: int,
    judge: LanguageModel | None = None,
) -> dict[str, Any]:
    """Measure the model that `run` names, write report.json and report.html into `out`.

    Returns the report.
    """
    if model.tokenizer is None:
        raise Refusal(f"{run} has no tokenizer: its texts cannot be read without one.")
    table = rows(model, steps, num, seed, judge)
    name, first = method_name(model), table[0]
    report: dict[str, Any] = {
        "title": f"{name}: {run}",
        "summary": f"{name} at {first['steps']} steps: sample entropy "
        f"{first['sample_entropy']:.3f} nats, {first['unique']:.1%} of {num} texts unique.",
        "rows": table,
        "facts": facts(seed) | {"weights": weights_mark(model)} | _held_out(model, Path(run), out),
        "curves": {name: curve(Path(run))},
        "samples": {
            f"{name} @ {row['steps']}": samples(model, row["evaluations"], 8, seed) for row in table
        },
    }
    if isinstance(model.experiment.data, Generated):
        report["reference"] = reference(num, seed)
    else:
        report["judge"] = "an autoregressive flowlm run" if judge else "nobody"
    if isinstance(model.experiment.method, Continuous):
        report["film"] = film(model, 16, seed)
    write(report, out)
    return report


def weights_mark(model: LanguageModel) -> str:
    """Tells weights apart, so that no card shows the figures of others."""
    return fingerprint(model.weights)[:16]


def write(report: Mapping[str, Any], directory: Path) -> None:
    """report.json and report.html."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            f"{directory} cannot be written ({error.strerror}): choose another --out."
        ) from error
    write_text(json.dumps(report, indent=1) + "\n", directory / "report.json")
    write_report(report, directory / "report.html")


def curve(directory: Path) -> list[tuple[int, float]]:
    """(step, training loss in nats per token) of a run, from its metrics.jsonl."""
    file = directory / "metrics.jsonl"
    if not file.exists():
        return []  # an export
    records = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the line that is being written
            records.append(json.loads(line))
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def facts(seed: int) -> dict[str, str | int]:
    """Where and with what numbers were made."""
    return {
        "flowlm": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "seed": seed,
    }


def _held_out(model: LanguageModel, run: Path, out: Path) -> dict[str, float]:
    """Nats per held-out token, where the method has a bound and the text is at hand."""
    method, data, network = model.experiment.method, model.experiment.data, model.network
    tokens = run / "tokens" if is_prepared(run / "tokens") else out / "tokens"
    if isinstance(method, Continuous):
        return {}
    if isinstance(data, Text) and not is_prepared(tokens) and not glob.glob(data.path or ""):
        return {}
    source = open_source(model.experiment, tokens, model.tokenizer)
    value = mean_nll(lambda batch, rng: method.nll(network, batch, rng), source.valid)
    if value is None:
        return {}
    exact = isinstance(method, Autoregressive)
    return {f"held-out nats per token ({'exact' if exact else 'upper bound'})": round(value, 4)}
