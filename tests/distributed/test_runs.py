"""Runs in several processes: they stop together, save together, and go on in any number."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import STEPS, chained, experiment, here, mishaps, resumed, stopped_and_resumed
from safetensors.torch import load_file
from several import on
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

CLOCKS = {"seconds", "tokens_per_second", "share_of_peak", "memory_bytes"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join("".join(rng.choices("abcde ", k=10)) + "\n" for _ in range(256)))
    return path


@pytest.fixture(scope="module")
def alone(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert here(experiment(text), out)[0] == "done"
    return out


@pytest.fixture(scope="module")
def pair(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A whole run of two processes and one that was stopped, and what they said."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, on(2, stopped_and_resumed, text, folder)


def records(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def state(run: Path, step: int = STEPS) -> dict[str, Any]:
    """A checkpoint, tensors by name."""
    file = run / "state.pt"
    dcp_to_torch_save(run / "checkpoints" / f"step-{step:08d}", file)
    content = torch.load(file, weights_only=True)
    file.unlink()
    moments = content["optimizer"]["state"]
    flat = {f"{n}.{k}": m for n, of in moments.items() for k, m in of.items()}
    for part in ("model", "average"):
        flat |= {f"{part}.{name}": weight for name, weight in content[part].items()}
    return flat | {"step": torch.tensor(content["step"])}


def close(one: Path, two: Path) -> None:
    """The same run but for rounding."""
    left, right = records(one), records(two)
    assert [r.keys() for r in left] == [r.keys() for r in right]
    for a, b in zip(left, right):
        assert a == pytest.approx(b, abs=2e-6)
    weights = [load_file(run / "model.safetensors") for run in (one, two)]
    for name, weight in weights[0].items():
        assert float((weight - weights[1][name]).abs().max()) <= 1e-6, name
    texts = [{f.name: f.read_text() for f in (r / "samples").iterdir()} for r in (one, two)]
    assert texts[0] == texts[1]


def test_a_stopped_run_of_two_goes_on_bit_for_bit_and_equals_that_of_one(
    alone: Path, pair: tuple[Path, Any]
) -> None:
    folder, (leader, other) = pair
    assert [end for end, _ in leader] == [
        "done",
        f"Interrupted: Stopped after step 3 and saved; go on with: flowlm train --resume "
        f"{folder / 'stopped'}",
        "done",
    ]
    assert [end for end, _ in other] == [end for end, _ in leader]
    assert [said for _, said in other] == ["", "", ""]
    assert "2 processes" in leader[0][1]
    whole, stopped = folder / "whole", folder / "stopped"
    for step in (4, STEPS):
        left, right = state(whole, step), state(stopped, step)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    weights = [(run / "model.safetensors").read_bytes() for run in (whole, stopped)]
    assert weights[0] == weights[1]
    assert records(whole) == records(stopped)
    close(whole, alone)
    assert not list(folder.rglob("*partial*"))


def test_one_goes_on_where_two_stopped(
    text: Path, alone: Path, pair: tuple[Path, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(pair[0] / "stopped", out)
    for newer in (f"step-{STEPS:08d}", "step-00000004"):
        for file in (out / "checkpoints" / newer).iterdir():
            file.unlink()  # damaged: the one before counts
    end, said = here(experiment(text), out, resume=True)
    assert end == "done"
    assert said.count("Skipped") == 2
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
    close(out, alone)


def test_every_process_walks_a_chain(text: Path, alone: Path, tmp_path: Path) -> None:
    """Stages are those of one process, and a stopped chain goes on bit for bit."""
    leader, other = on(2, chained, text, tmp_path)
    told = "Interrupted: Stopped after step 3 and saved; go on with: flowlm train --resume "
    assert leader == other == ["done", f"{told}{tmp_path / 'stopped'}", "done"]
    close(tmp_path / "whole" / "1-tiny", alone)
    for stage in ("1-tiny", "2-tiny"):
        left, right = (tmp_path / name / stage for name in ("whole", "stopped"))
        assert records(left) == records(right)
        weights = [(run / "model.safetensors").read_bytes() for run in (left, right)]
        assert weights[0] == weights[1]
    assert records(tmp_path / "whole" / "2-tiny") != records(tmp_path / "whole" / "1-tiny")
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.slow
def test_two_then_one_then_four(text: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, last = alone / "checkpoints" / "step-00000004", f"step-{STEPS:08d}"
    assert first.exists()
    ends = []
    on(2, _begun, text, out)
    for processes, stop in ((1, 2), (4, 2), (2, -1)):
        ends.append([end for end, _ in on(processes, resumed, text, out, stop)])
    assert all("Stopped after step 4 and saved" in end for end in ends[0]), ends
    assert all("Stopped after step 6 and saved" in end for end in ends[1])
    assert ends[2] == ["done"] * 2
    assert (out / "checkpoints" / last).exists()
    close(out, alone)


def _begun(text: Path, out: Path) -> None:
    from runs import signalled

    with signalled(signal.SIGINT, 2):
        here(experiment(text), out)


def test_what_goes_wrong_in_one_process_is_told_by_the_first(text: Path, tmp_path: Path) -> None:
    leader, other = on(2, mishaps, text, tmp_path)
    for name, reason in {
        "uneven": "--train.batch", "no group": "--train.shard 3",
        "blind": "no such text on this machine", "full": "No space left on device",
    }.items():  # fmt: skip
        assert leader[name][0].startswith("Refusal: "), name
        assert reason in leader[name][0], name
        assert other[name][0] in ("exit 2", leader[name][0]), name
        assert other[name][1] == "", name
        if name != "full":
            assert not (tmp_path / name).exists(), "something was left behind"
    # The disk is full at step 4, and that is noticed at the latest by the next save, the last one.
    assert leader["full, resumed"][0].startswith("Refusal: ")
    assert "no checkpoint" in leader["full, resumed"][0]
    assert not list(tmp_path.rglob("*partial*"))


COMMAND = [
    "train", "text-masked", "--data.length", "16", "--size.blocks", "2", "--size.width", "16",
    "--size.heads", "2", "--size.condition", "8", "--size.dropout", "0.2", "--train.batch", "8",
    "--train.log-every", "1", "--train.save-every", "1000", "--train.validate-every", "1000",
    "--train.device", "cpu",
]  # fmt: skip
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    "to", ["the terminal's processes", pytest.param("torchrun", marks=pytest.mark.slow)]
)
def test_torchrun_is_stopped_like_one_process(to: str, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*COMMAND, "--train.steps", "100000", "--data.path", str(text), "--out", str(out)]
    process = subprocess.Popen(
        [*LAUNCH, "-m", "flowlm", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        file = out / "metrics.jsonl"
        while not file.exists() or file.read_text().count("\n") < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        if to == "torchrun":
            process.terminate()
        else:  # as Ctrl-C does
            os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    (checkpoint,) = (out / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    told = f"Stopped after step {step} and saved; go on with: flowlm train --resume {out}"
    assert said.splitlines().count(told) == 1, errors
    assert {f.name for f in checkpoint.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}
    assert (out / "model.safetensors").exists()
    assert not list(out.rglob("*partial*"))
    assert records(out)[-1]["step"] == step


def test_torchrun_is_refused_in_one_sentence(text: Path, tmp_path: Path) -> None:
    words = [*COMMAND, "--data.path", str(text), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*LAUNCH, "-m", "flowlm", *words, "--train.lr", "-1"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("flowlm: ")]
    assert sentences == ["flowlm: --train.lr must be positive, not -1.0."]
