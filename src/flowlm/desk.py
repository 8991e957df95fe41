"""What is written down between the steps of a run: metrics, validation, samples, checkpoints."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch
from flowlm.directory import write_text, write_weights
from flowlm.experiment import Experiment
from flowlm.model import LanguageModel
from flowlm.nn.dit import DiT
from flowlm.source import Source
from flowlm.train import Log, State, Step, save

SAMPLE_STEPS = 32
"""Steps of the sample texts that are written at every validation."""


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
    _seconds: float = 0.0

    def after(self, step: Step) -> None:
        """Log, validate and save, each in its own rhythm and all at the last step."""
        plan = self.experiment.train
        last = step.number == plan.steps
        due = (plan.log_every, plan.validate_every, plan.save_every)
        if last or any(step.number % every == 0 for every in due):
            self.state.check(plan)
        self._tokens += step.tokens
        self._seconds += step.seconds
        if last or step.number % plan.log_every == 0:
            self._record(step)
        if last or step.number % plan.validate_every == 0:
            self._validate(step.number)
        if last or step.number % plan.save_every == 0:
            self.save()

    def save(self) -> None:
        """A checkpoint, and the averaged weights for everybody else."""
        self.state.check(self.experiment.train)
        save(self.state, self.directory / "checkpoints", self.experiment.train.keep)
        write_weights(self.state.average.weights, self.directory / "model.safetensors")

    def _record(self, step: Step) -> None:
        speed = self._tokens / max(self._seconds, 1e-9)
        loss = float(step.loss)
        figures = {key: float(value) for key, value in step.logs.items()}
        self.log.record(
            step.number,
            loss=loss,
            norm=float(step.norm),
            lr=step.lr,
            tokens_per_second=speed,
            seconds=self._seconds,
            **figures,
        )
        self.log.show(step.number, loss, speed)
        self._tokens, self._seconds = 0, 0.0

    def _validate(self, step: int) -> None:
        averaged = copy.deepcopy(self.network).requires_grad_(False)
        averaged.load_state_dict(self.state.average.weights)
        loss = evaluate_loss(self.experiment, averaged, self.source, self.teacher)
        self.log.record(step, valid=loss)
        self.log.say(f"step {step}: held-out loss {loss:.4f} nats per token")
        model = LanguageModel(self.experiment, averaged, self.source.tokenizer, self.source.length)
        texts = model.generate(4, steps=SAMPLE_STEPS)
        folder = self.directory / "samples"
        folder.mkdir(exist_ok=True)
        write_text("\n\n".join(texts) + "\n", folder / f"step-{step:08d}.txt")


def evaluate_loss(
    experiment: Experiment, network: DiT, source: Source, teacher: DiT | None
) -> float:
    """Mean training loss on held-out text, nats per token, with the same noise at every call."""
    network.eval()
    device, seed = network.head.weight.device, experiment.train.seed
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for i, batch in enumerate(source.valid):
            batch = Batch(batch.tokens.to(device), batch.weight.to(device))
            rng = Streams.of(seed, i, count=len(batch.tokens), device=device)
            paid = experiment.method.loss(network, batch, rng, teacher)
            total += float((paid.value * paid.weight).sum())
            weight += float(paid.weight.sum())
    return total / weight
