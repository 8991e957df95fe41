"""A run of two processes, killed without warning at random moments, against one that was not.

python -m benchmarks.kills [--kills 20] [--inside 10] [--seed 0]        about a minute a kill

Each kill has a run of its own: torchrun with two processes begins it, all its processes get
SIGKILL, the command that users have resumes it, and at its end every bit is compared. Moments are
spread over the run: one in each of KILLS equal parts, INSIDE of them aimed at the next save.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.killed import (
    STEPS,
    TooLate,
    Training,
    differences,
    last_step,
    partial,
    resumed_from,
    training,
    wait_for_save,
    wait_for_step,
    whole,
    write_text,
)
from benchmarks.provenance import write_result


@dataclass(frozen=True)
class Moment:
    """When to kill: after the record of a step and, if so aimed, when a save has begun."""

    step: int
    save: bool
    wait: float
    """How much longer, as a share of what a step or a save takes in the run that is not killed."""


@dataclass(frozen=True)
class Pace:
    """Medians of the run that is not killed, in seconds."""

    step: float
    save: float


@dataclass(frozen=True)
class Kill:
    """One kill, and what became of the run."""

    moment: Moment
    step: int
    """The last step recorded when the processes were gone."""
    inside: dict[str, list[str]]
    """The incomplete checkpoint that was left, with its files: it fell inside a save."""
    newest: int
    """The newest complete checkpoint then; 0 if there was none, and the run begins anew."""
    resumed: int
    """The step that the run went on from."""
    skipped: list[str]
    """What the run said about checkpoints that it could not use."""
    seconds: float
    """From the kill to the end of the run."""
    differences: list[str]
    """What is not as in the run that was not killed."""

    @property
    def good(self) -> bool:
        """Whether nothing was lost and nothing is different."""
        return self.resumed == self.newest and not self.skipped and not self.differences


def main() -> int:
    """Kill, compare, print a row for each; write benchmarks/results/kills.json."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--inside", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pace, kills = experience(
            Path(folder), moments(chosen.kills, chosen.inside, random.Random(chosen.seed))
        )
    inside, good = sum(bool(k.inside) for k in kills), sum(k.good for k in kills)
    print(f"{len(kills)} kills, {inside} of them inside a save: {good} runs end as the whole one")
    write_result(
        "kills",
        {
            "command": "python -m benchmarks.kills " + " ".join(sys.argv[1:]),
            "seed": chosen.seed,
            "steps": STEPS,
            "seconds": asdict(pace),
            "kills": len(kills),
            "inside": inside,
            "equal": good,
            "rows": [asdict(k) for k in kills],
        },
    )
    return 0 if good == len(kills) and inside > 0 else 1


def moments(kills: int, inside: int, rng: random.Random) -> list[Moment]:
    """One in each of `kills` equal parts of the run, in random order."""
    aimed = set(rng.sample(range(kills), inside))
    chosen = []
    for part in range(kills):
        step = 1 + int((part + rng.random()) / kills * (STEPS - 1))
        chosen.append(Moment(step, part in aimed, rng.random()))
    rng.shuffle(chosen)
    return chosen


def experience(folder: Path, chosen: list[Moment]) -> tuple[Pace, list[Kill]]:
    """The run that is not killed, and one for every moment."""
    text = folder / "text.txt"
    write_text(text)
    pace = uninterrupted(folder / "whole", text)
    print(f"a step {pace.step:.3f} s, a save {pace.save:.3f} s (medians)", flush=True)
    kills = []
    for number, moment in enumerate(chosen, 1):
        out = folder / "killed"
        kills.append(kill := killed(out, text, folder / "whole", moment, pace))
        print(f"{number:2}  {told(kill)}", flush=True)
        shutil.rmtree(out)
    return pace, kills


def uninterrupted(out: Path, text: Path) -> Pace:
    """The run that nothing happens to; its saves are timed from outside."""
    began: dict[str, float] = {}
    took: dict[str, float] = {}
    times = []
    with training(out, text) as run:
        wait_for_step(run, 1)
        step, since = 1, time.monotonic()
        while not run.over:
            for name in partial(out):
                took[name] = time.monotonic() - began.setdefault(name, time.monotonic())
            if (now := last_step(out)) > step:
                times.append((time.monotonic() - since) / (now - step))
                step, since = now, time.monotonic()
            time.sleep(0.002)
        run.end()
    return Pace(statistics.median(times), statistics.median(took.values()))


def killed(out: Path, text: Path, whole_run: Path, moment: Moment, pace: Pace) -> Kill:
    """Begin a run, kill it at the moment, resume it to its end, and compare."""
    while not _begun_and_killed(out, text, moment, pace):
        shutil.rmtree(out)  # the moment came too late: the same again
    step, inside, there = last_step(out), partial(out), whole(out)
    began = time.monotonic()
    with training(out, None if there else text) as run:
        run.end()
    said = run.paper.read_text()
    return Kill(
        moment, step, inside, there[-1] if there else 0, resumed_from(said),
        [line for line in said.splitlines() if line.startswith("Skipped")],
        time.monotonic() - began, differences(whole_run, out),
    )  # fmt: skip


def _begun_and_killed(out: Path, text: Path, moment: Moment, pace: Pace) -> bool:
    with training(out, text) as run:
        try:
            wait_for_step(run, 1)
            processes = run.processes()  # they are all there when the first step is done
            wait_for_step(run, moment.step)
            if moment.save:
                wait_for_save(run)
            time.sleep(moment.wait * (pace.save if moment.save else pace.step))
            return _killed(run, processes)
        except TooLate:
            return False


def _killed(run: Training, processes: list[int]) -> bool:
    if run.over:
        return False
    run.kill(processes)
    return True


def told(kill: Kill) -> str:
    """A row of the table."""
    aim = "save" if kill.moment.save else "step"
    where = "between saves"
    for name, files in kill.inside.items():
        where = f"inside the save of step {int(name[-8:])} ({len(files)} of 4 files)"
    return (
        f"{kill.moment.wait:4.2f} of a {aim} after step {kill.moment.step:2}: "
        f"killed at step {kill.step:2}, {where:42}  resumed from {kill.resumed:2}  "
        f"skipped {len(kill.skipped)}  {kill.seconds:3.0f} s  "
        f"{'equal' if kill.good else 'DIFFERENT: ' + ', '.join(kill.differences or ['start'])}"
    )


if __name__ == "__main__":
    sys.exit(main())
