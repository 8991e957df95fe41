"""Answers, as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import Any

from flowlm.core.types import FREE
from flowlm.serve.bodies import Completion
from flowlm.serve.orders import Shot
from flowlm.serve.texts import Texts, Wanted

_IDS = Random()
"""Seeded by the system once: asking the system for each id would let other threads in."""


def completion(
    name: str, model: Texts, texts: Sequence[Sequence[int]], asked: Completion, wanted: Wanted,
    seed: int, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """The answer of /v1/completions, in OpenAI's shape; what is ours stands under `flowlm`."""
    echo = asked.echo or asked.template is not None
    given = sum(token != FREE for row in wanted.given for token in row)
    written = len(texts) * wanted.length - given
    choices = [
        {
            "index": i,
            "text": model.told(tokens, wanted, i, echo),
            "logprobs": None,
            "finish_reason": "length" if asked.max_tokens is not None else "stop",
        }
        for i, tokens in enumerate(texts)
    ]
    return {
        "id": f"cmpl-{_IDS.getrandbits(96):024x}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
        "choices": choices,
        "usage": {
            "prompt_tokens": given,
            "completion_tokens": written,
            "total_tokens": given + written,
        },
        "flowlm": {
            "seed": seed, "steps": wanted.steps, "evaluations": _evaluations(model, wanted),
            "seconds": round(seconds, 6),
        },
    }  # fmt: skip


def frame(model: Texts, shot: Shot, wanted: Wanted) -> dict[str, Any]:
    """A line of a film."""
    words = model.words
    return {
        "step": shot.step, "steps": wanted.steps, "tau": round(shot.tau, 6),
        "tokens": shot.tokens,
        "words": [None if token == FREE else words[token] for token in shot.tokens],
        "confidence": [round(number, 6) for number in shot.confidence],
        "alternatives": [
            [[words[token], round(chance, 6)] for token, chance in place]
            for place in shot.alternatives
        ],
    }  # fmt: skip


def ended(
    model: Texts, tokens: Sequence[int], wanted: Wanted, seed: int, seconds: float
) -> dict[str, Any]:
    """The last line of a film."""
    return {
        "done": True, "text": model.told(tokens, wanted, 0, echo=True), "tokens": list(tokens),
        "words": [model.words[token] for token in tokens], "seed": seed, "steps": wanted.steps,
        "evaluations": _evaluations(model, wanted), "valid": model.valid(tokens),
        "seconds": round(seconds, 6),
    }  # fmt: skip


def _evaluations(model: Texts, wanted: Wanted) -> int:
    return wanted.sampler.evaluations(wanted.steps, model.model.length)
