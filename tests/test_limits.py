"""What a process may use, of control groups that are written down here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from flowlm.errors import Notice
from flowlm.machine import hardware, limits
from flowlm.machine.hardware import set_threads, usual_threads
from flowlm.machine.limits import cores, memories, memory, quotas
from flowlm.train.launch import Launch


def groups(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


TREES = {
    "none": ({}, "0::/", [], []),
    "unlimited": ({"a/cpu.max": "max 100000", "a/memory.max": "max"}, "0::/a", [], []),
    "version 2": ({"cpu.max": "150000 100000", "memory.max": "4096"}, "0::/", [1.5], [4096]),
    "around": (
        {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "a/b/memory.max": "1"},
        "0::/a/b\n", [2.0], [1],
    ),
    "others": ({"c/cpu.max": "200000 100000"}, "0::/a", [], []),
    "version 1": (
        {
            "cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            "memory/x/y/memory.limit_in_bytes": "2048", "memory/memory.limit_in_bytes": "9000",
        },
        "4:memory:/x/y\n2:cpu,cpuacct:/x\n0::/", [0.5], [2048, 9000],
    ),
    "version 1, unlimited": (
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", [], [],
    ),
    "beside": ({"unified/a/cpu.max": "300000 100000"}, "0::/a", [3.0], []),
    "nonsense": ({"cpu.max": "", "memory.max": "much"}, "0::/\nnonsense\n::", [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_limits_of_control_groups(name: str, tmp_path: Path) -> None:
    files, membership, processors, held = TREES[name]
    root = groups(tmp_path, files)
    assert list(quotas(root, membership)) == processors
    assert list(memories(root, membership)) == held


@pytest.mark.parametrize(("quota", "wanted"), [("50000", 1), ("100000", 1), ("max", None)])
def test_cores_are_bound_by_the_quota(
    quota: str, wanted: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GROUPS", groups(tmp_path, {"cpu.max": f"{quota} 100000"}))
    monkeypatch.setattr(limits, "_membership", lambda: "0::/")
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert cores() == (wanted or there)


def test_memory_is_bound_by_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory()
    assert whole is None or whole > 2**28
    monkeypatch.setattr(limits, "GROUPS", groups(tmp_path, {"memory.max": "123456"}))
    monkeypatch.setattr(limits, "_membership", lambda: "0::/")
    assert memory() == (None if whole is None else 123456)


TORCHRUN = Launch(0, 4, 0, 4, watched=True)


@pytest.mark.parametrize(
    ("width", "cores", "stated", "launch", "threads"),
    [
        (64, 8, "", None, 1),
        (65, 8, "", None, 8),
        (768, 8, "3", None, 3),
        (768, 8, "99", None, 8),
        (768, 8, "4,2", None, 4),
        (768, 8, "many", None, 8),
        (768, 8, "0", None, 8),
        (64, 8, "4", None, 1),
        (768, 8, "", TORCHRUN, 2),
        (768, 8, "1", TORCHRUN, 2),
        (768, 8, "1", None, 1),
        (768, 2, "", TORCHRUN, 1),
    ],
)
def test_threads_by_default(
    width: int, cores: int, stated: str, launch: Launch | None, threads: int
) -> None:
    assert usual_threads(width, cores, stated, launch or Launch()) == threads


def test_more_threads_than_processors_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(torch, "set_num_threads", made.append)
    there = os.cpu_count() or 1
    with pytest.warns(Notice, match="--train.threads 100,000"):
        assert set_threads(100_000, 768) == there
    assert set_threads(1, 768) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set_threads(0, 768) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(hardware, "cores", lambda: 5)
    assert set_threads(0, 768) == 5
    assert made == [there, 1, 1, 5]
