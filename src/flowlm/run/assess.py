"""Figures of a trained model: quality and diversity by number of steps, beside controls."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm import __version__
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Batch, Tokens
from flowlm.evaluate.extent import count_to_stop, ended
from flowlm.evaluate.groups import valid_by_group
from flowlm.evaluate.held_out import HeldOut
from flowlm.evaluate.judge import Reader
from flowlm.evaluate.likelihood import AT_ONCE, DRAWS, mean_nll
from flowlm.evaluate.measure import Value
from flowlm.evaluate.measures import KINDS, Written, figures, others, summed, values
from flowlm.evaluate.real import RealText
from flowlm.experiment import Text
from flowlm.machine.limits import cores
from flowlm.machine.source import commit
from flowlm.model.language_model import LanguageModel
from flowlm.run.metrics import records
from flowlm.sampling import MaskedDenoiser, Sampler, Unmask
from flowlm.tasks.generated import Generated
from flowlm.tasks.task import Task

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
    readers: Sequence[Reader] = (),
    real: RealText | None = None,
    done: Callable[[int], None] = lambda evaluations: None,
    held_out: Tokens | None = None,
) -> Iterator[dict[str, Any]]:
    """One row of figures for each number of steps, from `num` texts each, as it is measured.

    Of a task quality is exact (share valid, nats per token where its law is known). Of text it is
    nats per token under the first of `readers`, if there is one (what others read stands apart),
    and the distance to `real` text; of `held_out` texts their likelihood under the sampler. `done`
    hears of the evaluations of the network, a text each, as they are done. A method whose steps are
    its tokens has one row.
    """
    label = model.experiment.method.label
    for wanted, written in writings(
        model, steps, num, seed, sampler, readers, real, done, held_out
    ):
        yield row_of(label, wanted, written, values(written), readers)


def row_of(
    method: str,
    steps: Steps,
    written: Written,
    measured: Mapping[str, Value],
    readers: Sequence[Reader],
) -> dict[str, Any]:
    """The row of a report: what is measured of its texts, by further judges and by kind."""
    row = {"method": method, "steps": steps} | summed(measured) | others(written, readers[1:])
    kinds = [] if written.task is None else valid_by_group(written.task, written.tokens)
    return row | ({KINDS: kinds} if kinds else {})


def writings(
    model: LanguageModel,
    steps: Sequence[Steps],
    num: int,
    seed: int,
    sampler: Sampler,
    readers: Sequence[Reader] = (),
    real: RealText | None = None,
    done: Callable[[int], None] = lambda evaluations: None,
    held_out: Tokens | None = None,
) -> Iterator[tuple[Steps, Written]]:
    """The texts of `rows` and who judges them, for each number of steps, as they are written."""
    task, reader = task_of(model), next(iter(readers), None)
    for wanted in steps if sampler.counts_steps else (sampler.all_steps,):
        count = counted(wanted)
        evaluations = sampler.evaluations(count, model.length)

        def batch(texts: int, each: int = evaluations) -> None:
            done(texts * each)

        stop = None if model.tokenizer is None else model.tokenizer.stop
        tokens, seconds = _timed(model, count, num, seed, sampler, batch)
        bound = None if held_out is None else _bound(model, sampler, count, held_out, stop)
        tokens = ended(tokens, stop)
        written = Written(tokens, task, reader, real, bound, evaluations, seconds, stop)
        yield wanted, written


@torch.no_grad()
def _bound(
    model: LanguageModel, sampler: Sampler, steps: int, texts: Tokens, stop: int | None
) -> Float[Tensor, " n"] | None:
    """Nats per token of each text under the sampler, some at a time; None without a likelihood.

    Of rows of their own nats per mean token of them all: their mean is one per token.
    """
    device, nats = model.device, []
    tokens = float(texts.shape[1])
    if stop is not None:
        tokens = float(count_to_stop(texts, stop).double().mean())
    for first in range(0, len(texts), AT_ONCE):
        part = texts[first : first + AT_ONCE].to(device)
        rng = Streams.of(0, 1, count=len(part), first=first, total=len(texts), device=device)
        value = sampler.nll(model.experiment.method.denoiser(model.network), part, steps, rng)
        if value is None:
            return None
        nats.append(value.double().sum(1).cpu() / tokens)
    return torch.cat(nats)


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


def task_of(model: LanguageModel) -> Task | None:
    """The task that a model has learnt, if it is one."""
    data = model.experiment.data
    return None if isinstance(data, Text) else data


def perfect_masked_rows(steps: Sequence[int], num: int, seed: int) -> list[dict[str, Any]]:
    """Rows of masked diffusion with the language's exact posterior in place of a network.

    No training reaches further: what is missing is lost by drawing the words of a step
    independently of each other.
    """
    task = Generated()
    language = task.language
    prompt = torch.full((num, language.length), FREE)
    table = []
    for count in steps:
        rng = Streams.of(seed, count=num)
        # The flip matters after a contradiction only; the text is invalid by then.
        predict = partial(language.unmasker, mask_id=language.vocab, flip=1e-6)
        *_, last = Unmask().frames(MaskedDenoiser(predict, language.vocab), prompt, count, rng)
        tokens = last.tokens()
        table.append(
            {"method": "Masked, perfect", "steps": count}
            | figures(Written(tokens, task, evaluations=count))
        )
    return table


def held_out(model: LanguageModel, text: Batch) -> list[HeldOut]:
    """Nats per token of held-out text; nothing of a method without a likelihood."""
    method = model.experiment.method
    if method.likelihood is None:
        return []

    def nll(batch: Batch, rng: Streams) -> Tensor | None:
        return method.nll(model.network, batch, rng, DRAWS)

    stop = None if model.tokenizer is None else model.tokenizer.stop
    sizes = None if stop is None else count_to_stop(text.tokens, stop)
    found = mean_nll(nll, text, device=model.device, sizes=sizes)
    assert found is not None
    row: HeldOut = {
        "method": method.label,
        "nats": found.mean,
        "error": None if math.isnan(found.error) else found.error,
        "kind": method.likelihood,
        "of": method.likelihood_of,
        "texts": len(text.tokens),
    }
    if model.tokenizer is not None:
        read = (row[w > 0].tolist() for row, w in zip(text.tokens, text.weight))
        size = sum(len(model.tokenizer.decode(ids).encode()) for ids in read)
        tokens = float(text.weight.sum() if sizes is None else sizes.sum())
        row["bits_per_byte"] = found.mean * tokens / (math.log(2) * size)
    return [row]


def samples(
    model: LanguageModel, steps: int, num: int, seed: int, sampler: Sampler
) -> list[dict[str, Any]]:
    """Texts, each with whether it is valid where that can be told."""
    tokens = model.sample(num, steps, seed, sampler=sampler).cpu()
    assert model.tokenizer is not None
    texts = [model.tokenizer.decode(row) for row in tokens.tolist()]
    if (task := task_of(model)) is not None:
        valid = task.valid(tokens).tolist()
        return [{"text": text, "valid": ok} for text, ok in zip(texts, valid)]
    return [{"text": text} for text in texts]


@torch.no_grad()
def film(model: LanguageModel, steps: int, seed: int, sampler: Sampler) -> dict[str, Any]:
    """One text on its way from noise: at each time the likeliest tokens and their probability."""
    assert model.tokenizer is not None
    frames = []
    for frame in model.film(1, steps, seed, sampler=sampler):
        confidence, best = frame.prediction.log_probs()[0].exp().max(-1)
        words = model.tokenizer.pieces(best.tolist())
        frames.append(
            {"time": float(frame.tau[0, 0]), "words": words} | {"confidence": confidence.tolist()}
        )
    title = f"{model.experiment.method.label}, {steps} steps: at each place the likeliest word."
    return {"title": title, "frames": frames}


def curve(directory: Path) -> list[tuple[int, float]]:
    """(step, training loss in nats per token) of a run, from its metrics.jsonl."""
    return [(line["step"], line["loss"]) for line in records(directory) if "loss" in line]


def levels(directory: Path) -> list[tuple[float, float]]:
    """(tau, cross-entropy of held-out text in nats per token) of a run's last validation."""
    prefix = "valid/tau_"
    known = [line for line in records(directory) if any(key.startswith(prefix) for key in line)]
    last = known[-1] if known else {}
    return [(float(k.removeprefix(prefix)), v) for k, v in last.items() if k.startswith(prefix)]


def facts(seed: int) -> dict[str, str | int]:
    """Where and with what numbers were made."""
    return {
        "flowlm": __version__ if (at := commit()) is None else f"{__version__}, commit {at}",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {cores()} CPUs",
        "seed": seed,
    }
