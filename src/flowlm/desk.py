"""What is written down between the steps of a run: metrics, validation, samples, checkpoints."""

from __future__ import annotations

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
from flowlm.train import Checkpoints, Log, State, Step, World, passes

SAMPLE_STEPS = 32
"""Steps of the sample texts that are written at every validation."""


@dataclass
class Desk:
    """What is written down between steps."""

    experiment: Experiment
    directory: Path
    state: State[DiT]
    source: Source
    teacher: DiT | None
    checkpoints: Checkpoints
    log: Log | None
    """None in processes that do not write."""
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
        valid = None
        if last or step.number % plan.validate_every == 0:
            valid = self._validate(step.number)
        if last or step.number % plan.save_every == 0:
            self.save(valid)

    def save(self, valid: float | None = None) -> None:
        """A checkpoint, and the averaged weights for everybody else (in the background)."""
        self.state.check(self.experiment.train)
        weights = self.state.average.whole()
        if self.log is not None:  # what is written later must not change with the next step
            weights = {name: weight.to("cpu", copy=True) for name, weight in weights.items()}
        file = self.directory / "model.safetensors"
        self.checkpoints.save(self.state, valid, lambda: write_weights(weights, file))

    def _record(self, step: Step) -> None:
        if self.log is None:
            return
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

    def _validate(self, step: int) -> float:
        averaged = self._averaged()
        loss = evaluate_loss(self.experiment, averaged, self.source, self.teacher, self.state.world)
        if self.log is None:
            return loss
        self.log.record(step, valid=loss)
        self.log.say(f"step {step}: held-out loss {loss:.4f} nats per token")
        model = LanguageModel(self.experiment, averaged, self.source.tokenizer, self.source.length)
        texts = model.generate(4, steps=SAMPLE_STEPS)
        folder = self.directory / "samples"
        folder.mkdir(exist_ok=True)
        write_text("\n\n".join(texts) + "\n", folder / f"step-{step:08d}.txt")
        return loss

    def _averaged(self) -> DiT:
        """A plain network with the averaged weights, whole in every process."""
        experiment, source = self.experiment, self.source
        with torch.device("meta"):  # its own weights are never made
            network = experiment.method.network(
                experiment.size, source.tokenizer.vocab, source.length
            )
        network.load_state_dict(self.state.average.whole(), assign=True)
        return network.requires_grad_(False)


def evaluate_loss(
    experiment: Experiment, network: DiT, source: Source, teacher: DiT | None, world: World
) -> float:
    """Mean training loss on held-out text, nats per token, with the same noise at every call.

    Every process takes its share of the texts; all get the mean.
    """
    network.eval()
    device, plan = network.head.weight.device, experiment.train
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for i, batch in enumerate(source.valid):
            total = len(batch.tokens)
            for part in passes(world.share(total), plan.micro_batch):
                own = Batch(batch.tokens[part].to(device), batch.weight[part].to(device))
                rng = Streams.of(
                    plan.seed, i, count=len(own.tokens), first=part.start, total=total,
                    device=device,
                )  # fmt: skip
                paid = experiment.method.loss(network, own, rng, teacher)
                sums[0] += float((paid.value * paid.weight).sum())
                sums[1] += float(paid.weight.sum())
    total, weight = world.sum(sums).tolist()
    return total / weight
