"""The body of the training loop: what happens before, between and after steps."""

from __future__ import annotations

import copy
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.data.tokenizer import Tokenizer
from flowlm.directory import write_text, write_weights
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, to_json
from flowlm.loading import load
from flowlm.machine import choose_device, keep_memory, set_threads
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.model import LanguageModel, text_length
from flowlm.nn.compiled import compile_parts
from flowlm.nn.dit import DiT
from flowlm.source import Source, open_source
from flowlm.train import Log, State, Step, restore, save, train
from flowlm.train.checkpoint import found

if TYPE_CHECKING:
    from rich.console import Console  # cli.py makes it; only train/log.py and cli.py use rich

SAMPLE_STEPS = 32
"""Steps of the sample texts that are written at every validation."""


class Interrupted(Exception):
    """Training was asked to stop and has saved; the message says how to go on."""


def train_run(
    experiment: Experiment, directory: Path, console: Console, resume: bool = False
) -> None:
    """Train `experiment` into `directory`, from its newest checkpoint if `resume`.

    Writes experiment.json, tokenizer.json, metrics.jsonl, checkpoints/, samples/ and, with every
    checkpoint, model.safetensors (the averaged weights). Ctrl-C and SIGTERM finish the step, save,
    and raise Interrupted.
    """
    if not resume and found(directory / "checkpoints"):
        raise Refusal(
            f"{directory} already holds a run: choose another --out, or continue it with "
            f"flowlm train --resume {directory}."
        )
    if resume and not found(directory / "checkpoints"):
        raise Refusal(
            f"{directory / 'checkpoints'} holds no checkpoint to resume from: train from the start."
        )
    try:
        _train_run(experiment, directory, console, resume)
    except OSError as error:
        raise Refusal(
            f"{directory} could not be written ({error.strerror or error}): free some space or "
            "choose another --out."
        ) from error


def _train_run(experiment: Experiment, directory: Path, console: Console, resume: bool) -> None:
    plan = experiment.train
    device = choose_device(plan.device)
    threads = set_threads(plan.threads, experiment.size.width)
    kept = device.type == "cpu" and keep_memory()
    teacher = _teacher(experiment)
    with _begun_or_nothing(directory, resume):
        likeness = None if teacher is None else teacher.tokenizer
        if resume:
            likeness = Tokenizer.load(directory / "tokenizer.json")
        source = open_source(experiment, directory / "tokens", likeness)
        torch.manual_seed(plan.seed)
        guide = None if teacher is None else teacher.network
        network = experiment.method.network(
            experiment.size, source.tokenizer.vocab, source.length, guide
        ).to(device)
        guide = None if guide is None else guide.to(device)
        network.recompute = plan.recompute
        for part in (network, guide):
            if plan.compile and part is not None:
                compile_parts(part)
        state = State(network, plan)
        if resume:
            for sentence in restore(state, directory / "checkpoints"):
                console.print(sentence, soft_wrap=True, markup=False, emoji=False, highlight=False)
            write_weights(state.average.weights, directory / "model.safetensors")
        else:
            directory.mkdir(parents=True, exist_ok=True)
            source.tokenizer.save(directory / "tokenizer.json")
            write_text(to_json(experiment), directory / "experiment.json")
    count = sum(p.numel() for p in network.parameters())
    console.print(
        f"{experiment.name}: {count:,} parameters, {source.tokenizer.vocab:,} tokens in the "
        f"vocabulary, {device}, {threads} CPU thread{'s' * (threads > 1)}"
        f"{', memory kept' * kept}, into {directory}",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
    log = Log(directory / "metrics.jsonl", experiment.name, state.step, plan.steps, console)
    desk = _Desk(experiment, directory, state, network, source, guide, log)

    def loss(model: DiT, batch: Batch, rng: Streams) -> Loss:
        return experiment.method.loss(model, batch, rng, guide)

    with log, _asked_to_stop() as stop:
        for step in train(state, loss, source.batches, plan):
            desk.after(step)
            if stop.is_set() and step.number < plan.steps:
                desk.save()
                raise Interrupted(
                    f"Stopped after step {step.number} and saved; go on with: "
                    f"flowlm train --resume {directory}"
                )


@dataclass
class _Desk:
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


def _teacher(experiment: Experiment) -> LanguageModel | None:
    method = experiment.method
    if not isinstance(method, FlowMap) or method.teacher is None:
        return None
    teacher = load(method.teacher)
    theirs = teacher.experiment
    if not isinstance(theirs.method, Flow):
        raise Refusal(
            f"The teacher {method.teacher} is a {type(theirs.method).__name__}, not a Flow: give "
            "--method.teacher a run of a flow recipe."
        )
    if teacher.tokenizer is None:
        raise Refusal(f"The teacher {method.teacher} has no tokenizer: `flowlm convert` adds one.")
    for what, own, its in (
        ("--size", experiment.size, theirs.size),
        ("--method.encoder", method.encoder, theirs.method.encoder),
        ("--method.clock", method.clock, theirs.method.clock),
        ("length", text_length(experiment), teacher.length),
    ):
        if own != its:
            raise Refusal(
                f"The teacher {method.teacher} has another {what} ({its}) than this experiment "
                f"({own}): leave the option out to take the teacher's."
            )
    return teacher


@contextmanager
def _begun_or_nothing(directory: Path, resume: bool) -> Iterator[None]:
    """A new run begins without leftovers, and one that cannot begin leaves nothing behind."""
    top, tokens = directory, directory / "tokens"
    while not top.parent.exists():
        top = top.parent
    fresh = not top.exists()
    if not resume and tokens.exists():
        if not (directory / "experiment.json").exists():
            raise Refusal(f"{tokens} exists and is not of a run: choose another --out.")
        shutil.rmtree(tokens)  # of a run that stopped before it had saved anything
    kept = tokens.exists()
    try:
        yield
    except BaseException:
        if fresh:
            shutil.rmtree(top, ignore_errors=True)
        elif not kept:
            shutil.rmtree(tokens, ignore_errors=True)
        raise


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the step under way is finished first."""
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def ask(number: int, frame: object) -> None:
        if asked.is_set():  # asked twice: stop at once, the last checkpoint stands
            raise KeyboardInterrupt
        asked.set()

    for number in signals:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
