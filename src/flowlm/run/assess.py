"""Figures of a trained model: quality and diversity by number of steps, beside controls."""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from flowlm import __version__
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Batch, Tokens
from flowlm.data.language import demo_language
from flowlm.errors import Refusal
from flowlm.evaluate.controls import draw_marginals, marginals_valid
from flowlm.evaluate.diversity import sample_entropy, unique_share
from flowlm.evaluate.likelihood import mean_nll
from flowlm.evaluate.quality import noisy_channel_nll, valid_share
from flowlm.experiment import Generated
from flowlm.machine.limits import cores
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import MaskedDenoiser, Sampler, Unmask

FULL = 32
"""Steps of the row "full": more than the words of the demo's sentences."""

Steps = int | Literal["full"]
"""Steps of a sampler; "full" for enough of them."""


BATCHES = 5
"""Batches in which the texts of a row are written at least, where there are as many texts: the time
of one is a median over them."""


def counted(steps: Steps) -> int:
    """Steps as a number."""
    return FULL if steps == "full" else steps


def rows(
    model: LanguageModel,
    steps: Sequence[Steps],
    num: int,
    seed: int,
    sampler: Sampler,
    judge: LanguageModel | None = None,
    done: Callable[[int], None] = lambda evaluations: None,
) -> Iterator[dict[str, Any]]:
    """One row of figures for each number of steps, from `num` texts each, as it is measured.

    On the generated language quality is exact (share valid, nats per token). On other text it is
    nats per token under `judge` (see `require_judge`), if there is one. `done` hears of the
    evaluations of the network, a text each, as they are done. A method whose steps are its tokens
    has one row.
    """
    method = model.experiment.method
    for wanted in steps if sampler.counts_steps else ("full",):
        count = counted(wanted)
        evaluations = sampler.evaluations(count, model.length)

        def written(texts: int, each: int = evaluations) -> None:
            done(texts * each)

        tokens, seconds = _timed(model, count, num, seed, sampler, written)
        row = {"method": method.label, "steps": wanted, "evaluations": evaluations}
        row |= {"seconds": seconds} | _diversity(tokens)
        yield row | _quality(model, tokens, judge)


def _timed(
    model: LanguageModel,
    steps: int,
    num: int,
    seed: int,
    sampler: Sampler,
    written: Callable[[int], None],
) -> tuple[Tokens, float]:
    """`num` texts, and the seconds of one: those of a batch over its texts, in the median."""
    most = max(1, num // BATCHES)
    # What a first time costs (memory, kernels, threads) is no part of the time of a text; two steps
    # go every way that a sampler has.
    next(model.batches(num, min(steps, 2), seed, most=most, sampler=sampler)).cpu()
    texts, seconds = [], []
    began = time.perf_counter()
    for batch in model.batches(num, steps, seed, most=most, sampler=sampler):
        texts.append(batch.cpu())  # waits for the device
        seconds.append((time.perf_counter() - began) / len(batch))
        written(len(batch))
        began = time.perf_counter()
    return torch.cat(texts), statistics.median(seconds)


def reference(num: int, seed: int) -> dict[str, float]:
    """The demo's language itself, and a writer who knows its words but not how they depend."""
    language, _ = demo_language()
    true = language.sample(Streams.of(seed, 2, count=num))
    independent = draw_marginals(language, Streams.of(seed, 3, count=num))
    return {
        "entropy": language.entropy,
        "valid": valid_share(language, true),
        "nll": noisy_channel_nll(language, true),
        "sample_entropy": sample_entropy(true),
        "unique": unique_share(true),
        "marginals_valid": marginals_valid(language),
        "marginals_nll": noisy_channel_nll(language, independent),
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
        *_, last = Unmask().frames(MaskedDenoiser(predict, language.vocab), prompt, count, rng)
        tokens = last.tokens()
        table.append(
            {"method": "Masked, perfect", "steps": count, "evaluations": count}
            | _diversity(tokens)
            | _exact_quality(tokens)
        )
    return table


def samples(
    model: LanguageModel, steps: int, num: int, seed: int, sampler: Sampler
) -> list[dict[str, Any]]:
    """Texts, each with whether it is valid where that can be told."""
    tokens = model.sample(num, steps, seed, sampler=sampler).cpu()
    assert model.tokenizer is not None
    texts = [model.tokenizer.decode(row) for row in tokens.tolist()]
    if isinstance(model.experiment.data, Generated):
        valid = demo_language()[0].valid(tokens).tolist()
        return [{"text": text, "valid": ok} for text, ok in zip(texts, valid)]
    return [{"text": text} for text in texts]


@torch.no_grad()
def film(model: LanguageModel, steps: int, seed: int, sampler: Sampler) -> dict[str, Any]:
    """One text on its way from noise: at each time the likeliest tokens and their probability."""
    assert model.tokenizer is not None
    frames = []
    for frame in model.film(1, steps, seed, sampler=sampler):
        confidence, best = frame.prediction.log_probs()[0].exp().max(-1)
        words = [model.tokenizer.decode([token]) for token in best.tolist()]
        frames.append(
            {"time": float(frame.tau[0, 0]), "words": words} | {"confidence": confidence.tolist()}
        )
    title = f"{model.experiment.method.label}, {steps} steps: at each place the likeliest word."
    return {"title": title, "frames": frames}


def _diversity(tokens: Tokens) -> dict[str, float]:
    return {
        "samples": len(tokens),
        "sample_entropy": sample_entropy(tokens),
        "unique": unique_share(tokens),
    }


def _exact_quality(tokens: Tokens) -> dict[str, float]:
    language, _ = demo_language()
    return {"valid": valid_share(language, tokens), "nll": noisy_channel_nll(language, tokens)}


def _quality(model: LanguageModel, tokens: Tokens, judge: LanguageModel | None) -> dict[str, float]:
    if isinstance(model.experiment.data, Generated):
        return _exact_quality(tokens)
    if judge is None:
        return {}
    texts = Batch(tokens, torch.ones(tokens.shape))
    value = mean_nll(
        partial(judge.experiment.method.nll, judge.network), texts, device=judge.device
    )
    assert value is not None
    return {"nll": value}


def require_judge(judge: LanguageModel, model: LanguageModel) -> None:
    """Refuse a judge that cannot score the texts of a model."""
    if judge.experiment.method.likelihood != "exact":
        raise Refusal("The judge must be an autoregressive run: it needs exact likelihoods.")
    theirs, own = judge.tokenizer, model.tokenizer
    if theirs is None or own is None or theirs.fingerprint != own.fingerprint:
        raise Refusal("The judge has another tokenizer: give a run trained on the same text.")
    if judge.length < model.length:
        raise Refusal(
            f"The judge reads {judge.length} tokens and the texts have {model.length}: give a run "
            "that was trained on texts as long."
        )


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
        "machine": f"{platform.machine()}, {cores()} CPUs",
        "seed": seed,
    }
