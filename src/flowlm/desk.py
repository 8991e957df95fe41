"""What is written down between the steps of a run: metrics, validation, samples, checkpoints."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch
from flowlm.directory import write_text, write_weights
from flowlm.experiment import Experiment
from flowlm.forecast import work
from flowlm.machine import memory_held, peak
from flowlm.methods.continuous import Continuous
from flowlm.model import LanguageModel
from flowlm.nn.dit import DiT
from flowlm.source import Source
from flowlm.train import Log, State, Step, save

SAMPLE_STEPS = 32
"""Steps of the sample texts that are written at every validation."""

LEVELS = tuple(0.05 + 0.1 * i for i in range(10))
"""Clock times tau at which a flow is validated."""

LEVEL_TEXTS = 64
"""Held-out texts of that, at most: the same at every level."""


@dataclass
class Desk:
    """What is written down between steps."""

    experiment: Experiment
    directory: Path
    state: State[DiT]
    network: DiT
    source: Source
    teacher: DiT | None
    log: Log
    _tokens: int = 0
    _since: float = field(default_factory=time.perf_counter)
    """When the steps since the last record began, as if nothing had been done between steps."""

    def after(self, step: Step) -> None:
        """Log, validate and save, each in its own rhythm and all at the last step."""
        plan = self.experiment.train
        last = step.number == plan.steps
        due = (plan.log_every, plan.validate_every, plan.save_every)
        if last or any(step.number % every == 0 for every in due):
            self.state.check(plan)
        self._tokens += step.tokens
        if last or step.number % plan.log_every == 0:
            self._record(step)
        began = time.perf_counter()
        if last or step.number % plan.validate_every == 0:
            self._validate(step.number)
        if last or step.number % plan.save_every == 0:
            self.save()
        self._since += time.perf_counter() - began

    def save(self) -> None:
        """A checkpoint, and the averaged weights for everybody else."""
        self.state.check(self.experiment.train)
        save(self.state, self.directory / "checkpoints", self.experiment.train.keep)
        write_weights(self.state.average.weights, self.directory / "model.safetensors")

    def _record(self, step: Step) -> None:
        loss = float(step.loss)  # waits for the device, so the clock is read after it
        seconds = time.perf_counter() - self._since
        speed = self._tokens / seconds
        figures = {key: float(value) for key, value in step.logs.items()}
        share, memory = self._share_of_peak(speed), memory_held(self.network.head.weight.device)
        self.log.record(
            step.number,
            loss=loss,
            norm=float(step.norm),
            lr=step.lr,
            tokens_per_second=speed,
            seconds=seconds,
            share_of_peak=share,
            memory_bytes=memory,
            **figures,
        )
        self.log.show(
            step.number, loss, speed, peak=f"{share:.1%}", memory=f"{memory / 2**30:.2f} GiB"
        )
        self._tokens, self._since = 0, time.perf_counter()

    def _share_of_peak(self, tokens_per_second: float) -> float:
        """Useful operations a second over those of a large matrix product on this device."""
        method, plan, length = self.experiment.method, self.experiment.train, self.source.length
        counted = work(method, self.experiment.size, self.network.vocab, length)
        token = counted.token + counted.step / (plan.batch * length)
        dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
        best = peak(self.network.head.weight.device, dtype, torch.get_num_threads())
        return tokens_per_second * token / best

    def _validate(self, step: int) -> None:
        averaged = copy.deepcopy(self.network).requires_grad_(False)
        averaged.load_state_dict(self.state.average.weights)
        loss = evaluate_loss(self.experiment, averaged, self.source, self.teacher)
        levels = evaluate_by_tau(self.experiment, averaged, self.source)
        by_tau = {f"valid/tau_{tau:.2f}": paid for tau, paid in levels.items()}
        self.log.record(step, valid=loss, **by_tau)
        self.log.say(f"step {step}: held-out loss {loss:.4f} nats per token")
        model = LanguageModel(self.experiment, averaged, self.source.tokenizer, self.source.length)
        texts = model.generate(4, steps=SAMPLE_STEPS)
        folder = self.directory / "samples"
        folder.mkdir(exist_ok=True)
        write_text("\n\n".join(texts) + "\n", folder / f"step-{step:08d}.txt")
        self.log.samples(step, texts)


def evaluate_loss(
    experiment: Experiment, network: DiT, source: Source, teacher: DiT | None
) -> float:
    """Mean training loss on held-out text, nats per token, with the same noise at every call."""
    network.eval()
    total, weight = 0.0, 0.0
    with _as_trained(experiment, network):
        for i, batch in enumerate(source.valid):
            batch, rng = _on_device(experiment, network, batch, i)
            paid = experiment.method.loss(network, batch, rng, teacher)
            total += float((paid.value * paid.weight).sum())
            weight += float(paid.weight.sum())
    return total / weight


def evaluate_by_tau(experiment: Experiment, network: DiT, source: Source) -> dict[float, float]:
    """Cross-entropy of held-out text at each of LEVELS, nats per token; nothing without a clock.

    The same texts and the same noise at every level and at every call. Of a flow map, that of its
    diagonal against the text, whatever it learns from: a flow and its map compare.
    """
    method = experiment.method
    if not isinstance(method, Continuous):
        return {}
    network.eval()
    total, weight = torch.zeros(len(LEVELS), dtype=torch.float64), 0.0
    with _as_trained(experiment, network):
        for i, batch in enumerate(_first_texts(source.valid, LEVEL_TEXTS)):
            for place, level in enumerate(LEVELS):
                there, rng = _on_device(experiment, network, batch, i)
                tau = torch.full((len(rng), 1), level, device=rng.device)
                paid = method.nll_at(network, there, tau, rng)
                total[place] += float((paid * there.weight).sum())
            weight += float(batch.weight.sum())
    return dict(zip(LEVELS, (total / weight).tolist()))


def _first_texts(batches: Sequence[Batch], most: int) -> Iterator[Batch]:
    for batch in batches:
        if most > 0:
            yield Batch(batch.tokens[:most], batch.weight[:most])
        most -= len(batch.tokens)


def _on_device(experiment: Experiment, network: DiT, batch: Batch, i: int) -> tuple[Batch, Streams]:
    """The i-th batch of held-out text, and its noise."""
    device = network.head.weight.device
    rng = Streams.of(experiment.train.seed, i, count=len(batch.tokens), device=device)
    return Batch(batch.tokens.to(device), batch.weight.to(device)), rng


@contextmanager
def _as_trained(experiment: Experiment, network: DiT) -> Iterator[None]:
    """In the precision of training, without gradients."""
    kind = network.head.weight.device.type
    lowered = experiment.train.precision == "bfloat16"
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=lowered):
        yield
