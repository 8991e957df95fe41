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
from flowlm.experiment import Experiment, require_places, rooted, to_json
from flowlm.files import LOCK, clear_leftovers, holder, locked, write_text
from flowlm.hub.names import located
from flowlm.machine.hardware import keep_memory, set_threads
from flowlm.machine.stopping import Stop
from flowlm.model.fingerprints import FILE, Fingerprints, read_fingerprints
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.model.weights import fingerprint, write_weights
from flowlm.nn.compiled import compile_parts
from flowlm.nn.dit import DiT
from flowlm.run.fitting import require_fitting
from flowlm.run.inputs import Inputs, open_inputs, text_name
from flowlm.run.monitor import Monitor
from flowlm.run.processes import Started, started
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
            teacher = _teacher(experiment)
            track = _track(experiment, directory)
            if world.is_main:
                beginning.enter_context(_begun_or_nothing(directory, resume))
        inputs = _open_together(experiment, directory, resume, teacher, world)
        with world.raise_together():
            known = _fingerprints(experiment, directory, inputs, teacher) if world.is_main else None
            require_fitting(experiment, inputs.tokenizer.vocab, inputs.length, device, world)
        network, guide = _networks(experiment, inputs, teacher, device)
        state = State(network, plan, world, list(network.blocks))
        skipped = checkpoints.restore(state) if resume else []
        weights = state.average.whole()
        if known is not None:
            known.write(directory)
            if resume:
                write_weights(weights, directory / "model.safetensors")
            else:
                inputs.tokenizer.save(directory / "tokenizer.json")
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
    teacher: LanguageModel | None,
    world: World,
) -> Inputs:
    """Open the data in every process: the first one prepares it before the others look."""
    inputs = None
    for turn in (world.is_main, not world.is_main):
        with world.raise_together():
            if turn:
                teacher_tokenizer = None if teacher is None else teacher.tokenizer
                if resume:
                    teacher_tokenizer = Tokenizer.load(directory / "tokenizer.json")
                tokens = directory / "tokens"
                inputs = open_inputs(experiment, tokens, teacher_tokenizer, world.rank, world.size)
    assert inputs is not None
    return inputs


def _networks(
    experiment: Experiment, inputs: Inputs, teacher: LanguageModel | None, device: torch.device
) -> tuple[DiT, DiT | None]:
    """The network at its start, the same in every process, and the teacher's."""
    plan = experiment.train
    guide = None if teacher is None else teacher.network
    torch.manual_seed(plan.seed)
    network = experiment.method.network(
        experiment.size, inputs.tokenizer.vocab, inputs.length, guide
    ).to(device)
    experiment.method.prepare(network, inputs.counts)
    guide = None if guide is None else guide.to(device)
    network.recompute = plan.recompute
    for part in (network, guide):
        if plan.compile and part is not None:
            compile_parts(part)
    return network, guide


def _track(experiment: Experiment, directory: Path) -> Track | None:
    to = experiment.train.track
    if to is None:
        return None
    track = Track(to, directory, json.loads(to_json(experiment)))
    track.require()
    return track


def _teacher(experiment: Experiment) -> LanguageModel | None:
    method = experiment.method
    if method.teacher is None:
        return None
    if writer := holder(located(method.teacher) / LOCK):
        raise Refusal(
            f"The teacher {method.teacher} is still being trained, by {writer}: wait for it to "
            "end, or stop it."
        )
    teacher = load(method.teacher, "cpu")
    theirs = teacher.experiment
    if not isinstance(theirs.method, method.teachers):
        fitting = " or ".join(kind.__name__ for kind in method.teachers)
        raise Refusal(
            f"The teacher {method.teacher} is a {type(theirs.method).__name__}, not a {fitting}: "
            f"give --method.teacher a run of a {fitting.lower()} recipe."
        )
    if teacher.tokenizer is None:
        raise Refusal(f"The teacher {method.teacher} has no tokenizer: `flowlm convert` adds one.")
    own_side = {"--size": experiment.size, "length": experiment.data.length}
    their_side = {"--size": theirs.size, "length": teacher.length} | theirs.method.shared()
    for what, own in (own_side | method.shared()).items():
        its = their_side[what]
        if own != its:
            raise Refusal(
                f"The teacher {method.teacher} has another {what} ({its}) than this experiment "
                f"({own}): leave the option out to take the teacher's."
            )
    return teacher


def _fingerprints(
    experiment: Experiment, directory: Path, inputs: Inputs, teacher: LanguageModel | None
) -> Fingerprints:
    """Those of the text and the teacher, refused if the run in `directory` began with others."""
    of_teacher = None if teacher is None else fingerprint(teacher.weights)
    now = Fingerprints(inputs.fingerprint, of_teacher)
    known = read_fingerprints(directory)
    if known is not None:
        known.require(now, text_name(experiment), experiment.method.teacher, directory)
    return now


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
