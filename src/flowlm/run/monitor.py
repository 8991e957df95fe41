"""Metrics, validation, samples and checkpoints of a run, written between its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch
from flowlm.experiment import Experiment
from flowlm.files import write_text
from flowlm.machine.hardware import memory_held, peak
from flowlm.model.language_model import LanguageModel
from flowlm.model.weights import write_weights
from flowlm.nn.dit import DiT
from flowlm.nn.hollow import hollow
from flowlm.run.forecast import work
from flowlm.run.inputs import Inputs
from flowlm.train import ALONE, Checkpoints, Log, State, Step, World, micro_batches

SAMPLE_STEPS = 32
"""Steps of the sample texts that are written at every validation."""

LEVELS = tuple(0.05 + 0.1 * i for i in range(10))
"""Clock times tau at which a flow is validated."""

LEVEL_TEXTS = 64
"""Held-out texts of that, at most: the same at every level."""

AT_ONCE = 4
"""Texts that are validated at once, for each that is trained on at once: without gradients nothing
is kept from block to block."""


@dataclass
class Monitor:
    """Records, validates and saves a run between its steps."""

    experiment: Experiment
    directory: Path
    state: State[DiT]
    inputs: Inputs
    teacher: DiT | None
    checkpoints: Checkpoints
    log: Log | None
    """None in processes that do not write."""
    _recorded: int = field(init=False)
    """The step of the last record."""
    _since: float = field(default_factory=time.perf_counter)
    """When the steps since the last record began, as if nothing had been done between steps."""

    def __post_init__(self) -> None:
        """Begin where the run does."""
        self._recorded = self.state.step

    def record(self, step: Step) -> None:
        """Loss, speed and memory of the steps since the last record, to the log."""
        self.state.check(self.experiment.train)
        if self.log is None:
            return
        loss = float(step.loss)  # waits for the device, so the clock is read after it
        seconds = time.perf_counter() - self._since
        speed = (step.number - self._recorded) * step.tokens / seconds
        figures = {key: float(value) for key, value in step.logs.items()}
        share = self._share_of_peak(speed)
        memory = memory_held(self.state.model.head.weight.device)
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
        self._recorded, self._since = step.number, time.perf_counter()

    def validate(self, step: Step) -> float:
        """Held-out loss of the averaged weights, nats per token; texts of theirs go to samples/."""
        self.state.check(self.experiment.train)
        with self._paused():
            return self._validate(step.number)

    def save(self, valid: float | None = None) -> None:
        """A checkpoint, and the averaged weights for everybody else (in the background)."""
        self.state.check(self.experiment.train)
        with self._paused():
            weights = self.state.average.whole()
            if self.log is not None:  # what is written later must not change with the next step
                weights = {name: weight.to("cpu", copy=True) for name, weight in weights.items()}
            file = self.directory / "model.safetensors"
            self.checkpoints.save(self.state, valid, lambda: write_weights(weights, file))

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Time that is no part of training."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def _share_of_peak(self, tokens_per_second: float) -> float:
        """Useful operations a second over those of a large matrix product on these devices."""
        method, plan, length = self.experiment.method, self.experiment.train, self.inputs.length
        model, world = self.state.model, self.state.world
        counted = work(method, self.experiment.size, model.vocab, length)
        token = counted.flops_per_token + counted.flops_per_step / (plan.batch * length)
        dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
        best = peak(model.head.weight.device, dtype, torch.get_num_threads())
        return tokens_per_second * token / (best * world.size)

    def _validate(self, step: int) -> float:
        averaged, world = self._averaged(), self.state.world
        loss = evaluate_loss(self.experiment, averaged, self.inputs, self.teacher, world)
        levels = evaluate_by_tau(self.experiment, averaged, self.inputs, world)
        if self.log is None:
            return loss
        by_tau = {f"valid/tau_{tau:.2f}": paid for tau, paid in levels.items()}
        self.log.record(step, valid=loss, **by_tau)
        # Padding is learnt like any token, and a loss is a mean over all places.
        rows = self.inputs.tokenizer.stop is not None
        per = "place of a row" if rows else "token"
        self.log.say(f"step {step}: held-out loss {loss:.4f} nats per {per}")
        model = LanguageModel(self.experiment, averaged, self.inputs.tokenizer, self.inputs.length)
        texts = model.generate(4, steps=SAMPLE_STEPS)
        folder = self.directory / "samples"
        folder.mkdir(exist_ok=True)
        write_text("\n\n".join(texts) + "\n", folder / f"step-{step:08d}.txt")
        self.log.samples(step, texts)
        return loss

    def _averaged(self) -> DiT:
        """A plain network with the averaged weights, whole in every process."""
        experiment, inputs = self.experiment, self.inputs
        with hollow():  # its own weights are never made
            network = experiment.method.network(
                experiment.size, inputs.tokenizer.vocab, inputs.length
            )
        network.load_state_dict(self.state.average.whole(), assign=True)
        return network.requires_grad_(False)


def evaluate_loss(
    experiment: Experiment, network: DiT, inputs: Inputs, teacher: DiT | None, world: World = ALONE
) -> float:
    """Mean training loss on held-out text, nats per token: the same texts and noise at every call.

    Every process takes its share of the texts; all get the mean. How texts are batched changes
    nothing but rounding.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    with _as_trained(experiment, network):
        for batch, noise in _own_texts(experiment, network, inputs.valid, world):
            paid = experiment.method.loss(network, batch, noise(), teacher)
            sums[0] += (paid.value * paid.weight).cpu().double().sum()
            sums[1] += paid.weight.cpu().double().sum()
    total, weight = world.sum(sums).tolist()
    # Of very few texts it may happen that nothing counts: nothing is masked.
    return total / max(weight, 1e-9)


def evaluate_by_tau(
    experiment: Experiment, network: DiT, inputs: Inputs, world: World = ALONE
) -> dict[float, float]:
    """Cross-entropy of held-out text at each of LEVELS, nats per token; nothing without a clock.

    The same texts and the same noise at every level and at every call. Of a flow map, that of its
    diagonal against the text, whatever it learns from: a flow and its map compare.
    """
    method = experiment.method
    if method.time(network.vocab) is None:
        return {}
    sums = torch.zeros(len(LEVELS) + 1, dtype=torch.float64)
    few = Batch(inputs.valid.tokens[:LEVEL_TEXTS], inputs.valid.weight[:LEVEL_TEXTS])
    with _as_trained(experiment, network):
        for batch, noise in _own_texts(experiment, network, few, world):
            for place, level in enumerate(LEVELS):
                rng = noise()
                tau = torch.full((len(rng), 1), level, device=rng.device)
                paid = method.cross_entropy_at(network, batch, tau, rng)
                assert paid is not None
                sums[place] += (paid * batch.weight).cpu().double().sum()
            sums[-1] += batch.weight.cpu().double().sum()
    *totals, weight = world.sum(sums).tolist()
    return {level: total / weight for level, total in zip(LEVELS, totals)}


def _own_texts(
    experiment: Experiment, network: DiT, texts: Batch, world: World
) -> Iterator[tuple[Batch, Callable[[], Streams]]]:
    """This process's share of held-out texts, on the device, and what makes their noise.

    The noise of a text depends on its place among all `texts`, not on the pass or the process that
    it falls into.
    """
    plan, device, total = experiment.train, network.head.weight.device, len(texts.tokens)
    at_once = AT_ONCE * (plan.micro_batch or plan.batch // world.size)
    for part in micro_batches(world.share(total), at_once):
        own = Batch(texts.tokens[part].to(device), texts.weight[part].to(device))
        place = {"count": len(own.tokens), "first": part.start, "total": total}
        yield own, partial(Streams.of, plan.seed, 0, **place, device=device)


@contextmanager
def _as_trained(experiment: Experiment, network: DiT) -> Iterator[None]:
    """In the precision of training, without gradients or dropout."""
    network.eval()
    kind = network.head.weight.device.type
    lowered = experiment.train.precision == "bfloat16"
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=lowered):
        yield
