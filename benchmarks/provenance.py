"""Where a result comes from: the commit, the machine and the versions it was measured with."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from flowlm.machine.source import commit

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Commit (with a mark if the tree has uncommitted changes), machine, and versions."""
    import torch

    # Results that lie beside the code change nothing that is measured.
    code = ("src", "benchmarks", ":!benchmarks/results")
    return {
        "commit": commit(code) or "",
        "machine": f"{_processor()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json with its provenance."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"provenance": provenance()} | result, indent=1) + "\n")
    return file


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
