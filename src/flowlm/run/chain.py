"""A chain carried out: its stages trained in one directory, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowlm.errors import Refusal
from flowlm.experiment import read_experiment
from flowlm.experiment.chain import Stages, StoredChain, chain_json, read_chain, run_names
from flowlm.files import LOCK, clear_leftovers, locked, write_text
from flowlm.hub.names import CHAIN
from flowlm.run.processes import Started, started
from flowlm.run.training import Interrupted, train_in
from flowlm.train.checkpoint import found

if TYPE_CHECKING:
    from rich.console import Console


def train_chain(stages: Stages, directory: Path, console: Console) -> None:
    """Train the stages of a new chain into `directory`, a run each.

    The stages are linked already. Signals stop it as they stop a run, and `resume_chain` goes on.
    Started by torchrun, all processes call it.
    """
    chain = StoredChain(dict(zip(run_names(stages), stages, strict=True)), 0)
    with _opened(chain, directory) as processes:
        with processes.world.raise_together():
            if processes.world.is_main:
                _require_room(directory)
                _write(chain, directory)
        try:
            _walk(chain, directory, console, processes)
        except BaseException:
            # A chain that could not begin leaves nothing behind, like a run.
            if processes.world.is_main and not any((directory / n).exists() for n in chain.stages):
                (directory / CHAIN).unlink(missing_ok=True)
            raise


def resume_chain(directory: Path, console: Console) -> None:
    """Go on with the chain in `directory`: finished stages are not touched."""
    chain = read_chain(directory)
    with _opened(chain, directory) as processes:
        if processes.world.is_main:
            clear_leftovers(directory, (CHAIN,))
        _walk(chain, directory, console, processes)


@contextmanager
def _opened(chain: StoredChain, directory: Path) -> Iterator[Started]:
    """The processes that walk the chain; the first one holds its directory."""
    first, *others = chain.stages.values()
    for other in others:
        if (other.train.device, other.train.shard) != (first.train.device, first.train.shard):
            raise Refusal(
                f"{other.name} trains on another device or shard than {first.name}, and all stages "
                "of a chain train in one place: give --train.device and --train.shard to all."
            )
    with started(first.train) as processes, ExitStack() as lock:
        with processes.world.raise_together():
            if processes.world.is_main:
                lock.enter_context(locked(directory / LOCK, directory))
        yield processes


def _walk(chain: StoredChain, directory: Path, console: Console, processes: Started) -> None:
    """Train every stage that is not finished."""
    world, stop = processes.world, processes.stop
    count = len(chain.stages)
    for number, (name, planned) in enumerate(chain.stages.items(), 1):
        if number <= chain.finished:
            continue
        place = directory / name
        console.print(f"Stage {number} of {count}: {planned.name}", soft_wrap=True)
        again = world.all_gather(bool(found(place / "checkpoints")))[0]
        experiment = read_experiment(place) if again else planned
        try:
            train_in(processes, experiment, place, console, again)
        except Interrupted as stopped:
            raise Interrupted(stopped.step, directory) from None
        with world.raise_together():
            if world.is_main:
                _write(StoredChain(chain.stages, number), directory)
        # Asked in the last step of a stage, which it has finished.
        if world.any(stop.asked) and number < count:
            raise Interrupted(experiment.train.steps, directory)


def _require_room(directory: Path) -> None:
    if (directory / CHAIN).exists():
        raise Refusal(
            f"{directory} already holds a chain: choose another --out, or continue it with flowlm "
            f"train --resume {directory}."
        )
    if (directory / "experiment.json").exists():
        raise Refusal(f"{directory} already holds a run: choose another --out for a chain.")


def _write(chain: StoredChain, directory: Path) -> None:
    write_text(chain_json(chain), directory / CHAIN)
