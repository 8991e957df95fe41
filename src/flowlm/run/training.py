"""A run: everything that steps need, the steps, and what is due between them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, read_experiment, require_places, rooted, to_json
from flowlm.files import LOCK, clear_leftovers, locked, write_text
from flowlm.machine.hardware import keep_memory, set_threads
from flowlm.machine.stopping import Stop
from flowlm.model.fingerprints import FILE, Fingerprints, read_fingerprints
from flowlm.model.language_model import LanguageModel
from flowlm.model.weights import fingerprint, write_weights
from flowlm.nn.dit import DiT
from flowlm.run.fitting import require_fitting
from flowlm.run.inputs import Inputs, as_packed, open_inputs, text_name
from flowlm.run.monitor import Monitor
from flowlm.run.processes import Started, started
from flowlm.run.start import networks, origin_of, teacher_of
from flowlm.train import Checkpoints, Log, State, World, train
from flowlm.train.checkpoint import clear_partial, found
from flowlm.train.launch import launched
from flowlm.train.track import Track

if TYPE_CHECKING:
    from rich.console import Console  # cli.py makes it; only train/log.py and cli.py use rich


class Interrupted(Exception):
    """Training was asked to stop and has saved; the message says how to go on."""

    def __init__(self, step: int, directory: Path) -> None:
        super().__init__(
            f"Stopped after step {step} and saved; go on with: flowlm train --resume {directory}"
        )
        self.step = step


def train_run(
    experiment: Experiment, directory: Path, console: Console, resume: bool = False
) -> None:
    """Train `experiment` into `directory`, from its newest checkpoint if `resume`.

    Writes experiment.json, fingerprints.json, tokenizer.json, metrics.jsonl, checkpoints/, samples/
    and, with every checkpoint, model.safetensors (the averaged weights). Ctrl-C, SIGTERM and the
    other signals of `stopping` finish the step, save, and raise Interrupted. Started by torchrun,
    all processes call it, and process 0 writes. It locks the directory: a Refusal names the process
    that writes there already.
    """
    with started(experiment.train) as processes:
        train_in(processes, experiment, directory, console, resume)


def train_in(
    processes: Started, experiment: Experiment, directory: Path, console: Console, resume: bool
) -> None:
    """Train as `train_run` does, in processes that have met already."""
    world, stop = processes.world, processes.stop
    with ExitStack() as lock:
        with world.raise_together(), _writing(directory):
            if world.is_main:
                lock.enter_context(locked(directory / LOCK, directory))
        with _writing(directory):
            monitor = _monitor(experiment, directory, console, resume, processes.device, world)
            _steps(monitor, stop)
            stop.stepping = False


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"{directory} could not be written ({error.strerror or error}): free some space or "
            "choose another --out."
        ) from error


def _monitor(
    experiment: Experiment,
    directory: Path,
    console: Console,
    resume: bool,
    device: torch.device,
    world: World,
) -> Monitor:
    """Everything that steps need, at the step where they begin."""
    plan = experiment.train
    threads = set_threads(plan.threads, experiment.size.width, launched())
    kept = device.type == "cpu" and keep_memory()
    checkpoints = Checkpoints(directory / "checkpoints", plan.keep, world)
    with ExitStack() as beginning:
        with world.raise_together():
            _require_room(directory, resume)
            if resume:
                require_places(experiment, directory)
            teacher = teacher_of(experiment)
            origin = None if resume else origin_of(experiment)
            track = _track(experiment, directory)
            if world.is_main:
                beginning.enter_context(_begun_or_nothing(directory, resume))
        inputs = _open_together(experiment, directory, resume, teacher or origin, world)
        experiment = as_packed(experiment, inputs)
        with world.raise_together():
            known = None
            if world.is_main:
                known = _fingerprints(experiment, directory, inputs, teacher, origin)
            require_fitting(experiment, inputs.tokenizer.vocab, inputs.length, device, world)
        network, guide = networks(experiment, inputs, teacher, origin, device)
        state = State(network, plan, world, list(network.blocks))
        skipped = checkpoints.restore(state) if resume else []
        weights = state.average.whole()
        if known is not None:
            known.write(directory)
            if resume:
                write_weights(weights, directory / "model.safetensors")
            else:
                inputs.tokenizer.save(directory / "tokenizer.json")
            if not resume or read_experiment(directory) != experiment:
                write_text(to_json(rooted(experiment)), directory / "experiment.json")
    log = None
    if world.is_main:
        count = sum(p.numel() for p in network.parameters())
        file = directory / "metrics.jsonl"
        log = Log(file, experiment.name, state.step, plan.steps, console, track)
        for sentence in (
            *skipped,
            f"{experiment.name}: {count:,} parameters, {inputs.tokenizer.vocab:,} tokens in the "
            f"vocabulary, {device}, {f'{world.size} processes, ' * (world.size > 1)}"
            f"{threads} CPU thread{'s' * (threads > 1)}{', memory kept' * kept}, into {directory}",
        ):
            log.say(sentence)
    return Monitor(experiment, directory, state, inputs, guide, checkpoints, log)


def _steps(monitor: Monitor, stop: Stop) -> None:
    """Take the steps; every process stops at the same one."""
    experiment, plan, world = monitor.experiment, monitor.experiment.train, monitor.state.world

    def loss(model: DiT, batch: Batch, rng: Streams) -> Loss:
        return experiment.method.loss(model, batch, rng, monitor.teacher)

    with monitor.log or nullcontext(), monitor.checkpoints:
        stop.stepping = True
        for step in train(monitor.state, loss, monitor.inputs.batches, plan):
            valid = None
            if plan.due(step.number, plan.log_every):
                monitor.record(step)
            if plan.due(step.number, plan.validate_every):
                valid = monitor.validate(step)
            if plan.due(step.number, plan.save_every):
                monitor.save(valid)
            stopping = world.any(stop.asked or monitor.checkpoints.failed)
            if stopping and step.number < plan.steps:
                monitor.save()
                monitor.checkpoints.finish()
                raise Interrupted(step.number, monitor.directory)


def _require_room(directory: Path, resume: bool) -> None:
    there = found(directory / "checkpoints")
    if not there and (directory / "model.safetensors").exists():
        raise Refusal(f"{directory} holds a model without checkpoints: choose another --out.")
    if there and not resume:
        raise Refusal(
            f"{directory} already holds a run: choose another --out, or continue it with "
            f"flowlm train --resume {directory}."
        )
    if resume and not there:
        raise Refusal(
            f"{directory / 'checkpoints'} holds no checkpoint to resume from: train from the start."
        )


def _open_together(
    experiment: Experiment,
    directory: Path,
    resume: bool,
    before: LanguageModel | None,
    world: World,
) -> Inputs:
    """Open the data in every process: the first one prepares it before the others look.

    `before` is the teacher or the origin of a new run, whose tokenizer it takes.
    """
    inputs = None
    for turn in (world.is_main, not world.is_main):
        with world.raise_together():
            if turn:
                tokenizer = None if before is None else before.tokenizer
                if resume:
                    tokenizer = Tokenizer.load(directory / "tokenizer.json")
                tokens = directory / "tokens"
                inputs = open_inputs(experiment, tokens, tokenizer, world.rank, world.size)
    assert inputs is not None
    return inputs


def _track(experiment: Experiment, directory: Path) -> Track | None:
    to = experiment.train.track
    if to is None:
        return None
    track = Track(to, directory, json.loads(to_json(experiment)))
    track.require()
    return track


def _fingerprints(
    experiment: Experiment,
    directory: Path,
    inputs: Inputs,
    teacher: LanguageModel | None,
    origin: LanguageModel | None,
) -> Fingerprints:
    """Those of text and weights, refused if the run in `directory` began with others."""
    of_teacher, of_origin = (
        None if model is None else fingerprint(model.weights) for model in (teacher, origin)
    )
    now = Fingerprints(inputs.fingerprint, of_teacher, of_origin)
    known = read_fingerprints(directory)
    if known is None:
        return now
    known.require(now, text_name(experiment), experiment.method.teacher, directory)
    return known  # where it started is not asked again


@contextmanager
def _begun_or_nothing(directory: Path, resume: bool) -> Iterator[None]:
    """A run begins without leftovers, and one that cannot begin leaves nothing behind."""
    tokens = directory / "tokens"
    if not resume:
        if tokens.exists():
            if not (directory / "experiment.json").exists():
                raise Refusal(f"{tokens} exists and is not of a run: choose another --out.")
            shutil.rmtree(tokens)  # of a run that stopped before it had saved anything
        (directory / FILE).unlink(missing_ok=True)
    clear_partial(directory / "checkpoints")
    clear_leftovers(directory, ("model.safetensors", FILE, "experiment.json", "tokenizer.json"))
    clear_leftovers(directory / "samples", ("step-*.txt",))
    before = set(directory.iterdir())
    try:
        yield
    except BaseException:
        for made in set(directory.iterdir()) - before:
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        raise
