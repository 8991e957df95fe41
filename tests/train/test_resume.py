"""A run that was stopped and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stored import stored

METHODS = [
    "flow", "flow in projected space", "flow map", "flow map with a teacher", "masked",
    "sdtt", "di4c", "curriculum", "dcd", "sedd", "sedd, uniform", "autoregressive", "gumbel",
]  # fmt: skip
TAUGHT = ("flow map with a teacher", "sdtt", "di4c", "dcd", "gumbel")


def state(directory: Path, step: int) -> dict[str, Any]:
    return stored(directory / "checkpoints" / f"step-{step:08d}")


def stop_at(directory: Path, step: int, to: Path) -> Path:
    """A copy of a run as it was right after the checkpoint of a step, but for its metrics."""
    shutil.copytree(directory, to)
    for checkpoint in (to / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    for sample in (to / "samples").iterdir():
        if int(sample.stem.removeprefix("step-")) > step:
            sample.unlink()
    (to / "model.safetensors").unlink()
    return to


def equal(one: Path, two: Path, steps: int, same: Callable, records: Callable) -> None:
    same(state(one, steps), state(two, steps))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert records(one) == records(two)
    samples = [
        {file.name: file.read_text() for file in (run / "samples").iterdir()} for run in (one, two)
    ]
    assert samples[0] == samples[1]


# A teacher has the size of its student, dropout included: that pair has a test of its own below.
@pytest.mark.parametrize(
    ("method", "dropout"),
    [(m, d) for m in METHODS for d in (0.0, 0.3) if m not in TAUGHT or d != 0.3],
)
def test_resuming_equals_going_on(
    method: str,
    dropout: float,
    experiments: Callable,
    run: Callable,
    same: Callable,
    records: Callable,
    tmp_path: Path,
) -> None:
    experiment = experiments(method, dropout)
    whole = tmp_path / "whole"
    run(experiment, whole)
    for step in (2, 4):
        again = stop_at(whole, step, tmp_path / f"stopped-at-{step}")
        torch.rand(step)  # whatever else draws from torch's own stream changes nothing
        run(experiment, again, resume=True)
        equal(whole, again, 6, same, records)


def test_resuming_a_map_with_dropout_and_a_teacher_equals_going_on(
    experiments: Callable, run: Callable, same: Callable, records: Callable, tmp_path: Path
) -> None:
    run(experiments("flow", 0.3), tmp_path / "teacher")
    experiment = experiments("flow map", 0.3)
    method = replace(experiment.method, teacher=str(tmp_path / "teacher"))
    experiment = replace(experiment, method=method)
    whole = tmp_path / "whole"
    run(experiment, whole)
    again = stop_at(whole, 2, tmp_path / "stopped")
    run(experiment, again, resume=True)
    equal(whole, again, 6, same, records)


def test_dropout_is_drawn_from_seed_and_step(
    experiments: Callable, run: Callable, same: Callable, tmp_path: Path
) -> None:
    runs = {}
    for name, options in {
        "without": {}, "with": {"dropout": 0.3}, "again": {"dropout": 0.3},
        "other": {"dropout": 0.3, "seed": 1},
    }.items():  # fmt: skip
        torch.rand(len(runs))
        run(experiments("masked", **options), tmp_path / name)
        runs[name] = state(tmp_path / name, 6)["model"]
    same(runs["with"], runs["again"])
    for name in ("without", "other"):
        assert not torch.equal(runs[name]["head.weight"], runs["with"]["head.weight"])


def test_how_often_is_logged_validated_and_saved_changes_nothing(
    experiments: Callable, run: Callable, same: Callable, tmp_path: Path
) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    run(experiments("flow", 0.3, validate_every=1, save_every=1), often)
    run(experiments("flow", 0.3, log_every=99, validate_every=99, save_every=99), seldom)
    same(state(often, 6), state(seldom, 6))


def test_a_run_can_be_resumed_many_times(
    experiments: Callable, run: Callable, same: Callable, records: Callable, tmp_path: Path
) -> None:
    experiment = experiments("flow", save_every=1)
    whole = tmp_path / "whole"
    run(experiment, whole)
    again = whole
    for step in (5, 3, 1):
        again = stop_at(again, step, tmp_path / f"stopped-at-{step}")
        run(experiment, again, resume=True)
    equal(whole, again, 6, same, records)


def test_weights_that_were_never_exported_are_exported_on_resuming(
    experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    # Cut off between the last checkpoint and model.safetensors.
    run(experiments("flow"), tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    run(experiments("flow"), tmp_path / "run", resume=True)
    assert weights.read_bytes() == before


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_checkpoints_are_kept(
    keep: int, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    run(experiments("masked", keep=keep), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004", "step-00000006"][-keep:]


def test_the_table_of_a_projected_teacher_stays(
    experiments: Callable, run: Callable, teacher: Path, tmp_path: Path
) -> None:
    run(experiments("flow map with a teacher"), tmp_path / "run")
    own, theirs = (
        load_file(tmp_path / "run/model.safetensors"),
        load_file(teacher / "model.safetensors"),
    )
    assert torch.equal(own["encoder.table"], theirs["encoder.table"])
    assert torch.equal(state(tmp_path / "run", 6)["model"]["encoder.table"], own["encoder.table"])
    assert not torch.equal(own["head.weight"], theirs["head.weight"])
    run(experiments("flow map"), tmp_path / "free")
    first, last = (state(tmp_path / "free", step)["model"]["encoder.table"] for step in (2, 6))
    assert not torch.equal(first, last)


def test_what_a_killed_process_left_half_written_is_removed(
    experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    """Names of such files hold the number of the process, so no later one writes over them."""
    out = tmp_path / "run"
    run(experiments("masked"), out)
    there = {path.relative_to(out) for path in out.rglob("*")}
    for half in (".model.safetensors.123.partial", "samples/.step-00000003.txt.123.partial"):
        (out / half).write_bytes(b"half")
    others = out / ".report.json.123.partial"  # which evaluation may be writing just now
    others.touch()
    run(experiments("masked"), out, resume=True)
    others.unlink()
    assert {path.relative_to(out) for path in out.rglob("*")} == there
