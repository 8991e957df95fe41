"""Trainings of a comparison: runs named after all that they depend on, two at a time.

A run lies in NAME-HASH, where the hash is of its experiment and of its teacher's run. So trainings
that several rows need are done once, finished ones are kept, and interrupted ones go on.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, inherit_from_teacher, to_json
from flowlm.experiment.chain import is_taught
from flowlm.files import write_text
from flowlm.machine.source import commit
from flowlm.run.metrics import records

AT_ONCE = 2
"""Trainings at the same time, a process and a thread each."""

Figures = dict[str, Any]
Measure = Callable[[Path], Figures]
"""What is to be found out of a finished run: a function of a module."""


@dataclass(frozen=True)
class Training:
    """A run and the run that teaches it."""

    experiment: Experiment
    """Its teacher, if it has one, is the name of that one's run."""
    teacher: Training | None

    @property
    def name(self) -> str:
        """The name of its run directory."""
        digest = hashlib.sha256(to_json(self.experiment).encode()).hexdigest()
        return f"{self.experiment.name}-{digest[:12]}"

    def placed(self, out: Path) -> Experiment:
        """The experiment with its teacher's run in `out`."""
        if self.teacher is None:
            return self.experiment
        place = str((out / self.teacher.name).absolute())
        return replace(self.experiment, method=self.experiment.method.with_teacher(place))


def trainings_of(stages: Sequence[Experiment]) -> tuple[Training, ...]:
    """The trainings of a chain."""
    found: list[Training] = []
    for stage in stages:
        before, teacher = found[-1] if found else None, None
        if before is not None and is_taught(stage, before.experiment):
            stage = inherit_from_teacher(stage, before.name, before.experiment)
            teacher = before
        found.append(Training(stage, teacher))
    return tuple(found)


def carry_out(wanted: Iterable[Training], out: Path, measure: Measure) -> None:
    """Train and measure what is wanted, and train the teachers of that."""
    measured = dict.fromkeys(wanted)
    trainings = dict.fromkeys(t for last in measured for t in _with_teachers(last))
    out.mkdir(parents=True, exist_ok=True)
    waiting, done, running = list(trainings), set[Training](), dict[BaseProcess, Training]()
    context = multiprocessing.get_context("spawn")
    try:
        while waiting or running:
            ready = [t for t in waiting if t.teacher is None or t.teacher in done]
            for training in ready[: AT_ONCE - len(running)]:
                waiting.remove(training)
                how = measure if training in measured else None
                process = context.Process(target=carry_out_one, args=(training, out, how))
                process.start()
                running[process] = training
            connection.wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                training = running.pop(process)
                if process.exitcode:
                    sys.exit(f"{out / training.name} did not finish; the same command goes on.")
                done.add(training)
                print(f"{len(done)} of {len(trainings)}: {training.name}", flush=True)
    except BaseException:
        for process in running:
            process.terminate()  # SIGTERM: it saves and stops
            process.join()
        raise


def carry_out_one(training: Training, out: Path, measure: Measure | None) -> None:
    """Train a run to its end, or go on with it, and measure it (in a process of its own)."""
    import torch

    from flowlm.run.training import Interrupted, train_run
    from flowlm.train.checkpoint import found
    from flowlm.train.log import plain

    place = out / training.name
    if (measure is not None and file_of(place, measure).exists()) or (
        measure is None and (place / DONE).exists()
    ):
        return
    torch.set_num_threads(1)
    if not (place / DONE).exists():
        place.mkdir(exist_ok=True)
        with (place / "train.log").open("a") as log:
            try:
                again = bool(found(place / "checkpoints"))
                train_run(training.placed(out), place, plain(log), resume=again)
            except (Interrupted, Refusal) as stopped:
                sys.exit(str(stopped))
        write_text(json.dumps({"commit": commit() or ""}), place / DONE)
    if measure is not None:
        write_text(json.dumps(measure(place), indent=1), file_of(place, measure))


DONE = "done.json"
"""The file of a run that is finished: the commit that trained it."""


def file_of(place: Path, measure: Measure) -> Path:
    """Where the figures of a run are kept, named for the file of the function however it is run."""
    return place / f"{Path(inspect.getfile(measure)).stem}.json"


def figures_of(training: Training, out: Path, measure: Measure) -> Figures:
    """The figures of a run that was measured, with how it was trained."""
    place = out / training.name
    return {
        "run": training.name,
        "steps": training.experiment.train.steps,
        "seconds of training": round(sum(r.get("seconds", 0.0) for r in records(place))),
        **json.loads((place / DONE).read_text()),
        **json.loads(file_of(place, measure).read_text()),
    }


def _with_teachers(training: Training) -> list[Training]:
    before = [] if training.teacher is None else _with_teachers(training.teacher)
    return [*before, training]
