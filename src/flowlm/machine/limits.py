"""Limits of this process: processors and bytes, as the system allows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows its control groups, with which containers and schedulers set limits."""


def cores() -> int:
    """Processors that this process may keep busy: at most its affinity and its groups' quota."""
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min([there, *(int(quota) for quota in quotas(GROUPS, _membership()))]))


def memory() -> int | None:
    """Bytes that this process may hold: at most the machine's, its groups' and its own limit.

    None where the system does not say.
    """
    if sys.platform == "win32":
        return None
    import resource

    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    if own != resource.RLIM_INFINITY:
        known.append(own)
    return min([*known, *memories(GROUPS, _membership())])


def quotas(groups: Path, membership: str) -> Iterator[float]:
    """Processors' worth of time that each control group of a process grants, where it is limited.

    `groups` is the tree of control groups, of version 2 or 1, and `membership` what
    /proc/self/cgroup says. A group is bound by those around it.
    """
    for group in _around(groups, membership):
        for stated in (_words(group / "cpu.max"), _old_quota(group)):
            with suppress(ValueError):  # "max"
                quota, period = stated
                if float(quota) > 0 < float(period):
                    yield float(quota) / float(period)


def memories(groups: Path, membership: str) -> Iterator[int]:
    """Bytes that each control group of a process grants, where they are limited; as `quotas`."""
    for group in _around(groups, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(ValueError):  # "max"
                (limit,) = _words(group / name)
                yield int(limit)


def _membership() -> str:
    with suppress(OSError):
        return Path("/proc/self/cgroup").read_text(encoding="utf-8")
    return ""


def _around(groups: Path, membership: str) -> Iterator[Path]:
    """The directories of the groups of a process, and of all groups around them."""
    for line in membership.splitlines():
        _, _, placed = line.partition(":")
        controllers, _, path = placed.partition(":")
        own = [name for name in path.split("/") if name]
        # Version 2 names no controllers; beside version 1 it is in a directory of its own.
        bases = {controllers, *controllers.split(",")} if controllers else {"", "unified"}
        for base in sorted(bases):
            for depth in range(len(own), -1, -1):
                yield groups.joinpath(base, *own[:depth])


def _old_quota(group: Path) -> list[str]:
    return _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")


def _words(file: Path) -> list[str]:
    with suppress(OSError):
        return file.read_text(encoding="utf-8").split()
    return []
