"""The body of the training loop: what happens before, between and after steps."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.data.tokenizer import Tokenizer
from flowlm.desk import Desk
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
from flowlm.source import open_source
from flowlm.train import Log, State, restore, train
from flowlm.train.checkpoint import found
from flowlm.train.track import Track

if TYPE_CHECKING:
    from rich.console import Console  # cli.py makes it; only train/log.py and cli.py use rich


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
    track = _track(experiment, directory)
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
    file = directory / "metrics.jsonl"
    log = Log(file, experiment.name, state.step, plan.steps, console, track)
    desk = Desk(experiment, directory, state, network, source, guide, log)

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


def _track(experiment: Experiment, directory: Path) -> Track | None:
    to = experiment.train.track
    if to is None:
        return None
    track = Track(to, directory, json.loads(to_json(experiment)))
    track.require()
    return track


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
