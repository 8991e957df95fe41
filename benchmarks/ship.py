"""Copy a trained demo flow map into the package, as the model that `flowlm sample demo` loads.

python -m benchmarks.ship runs/demo/flow-map
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import flowlm
from flowlm.hub.names import SHIPPED
from flowlm.methods.flow_map import FlowMap

LIMIT = 2_000_000
"""Bytes that the shipped weights may take."""


def main() -> None:
    """Export the run named on the command line into src/flowlm/weights/demo."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.ship RUN")
    model = flowlm.load(Path(sys.argv[1]), "cpu")
    method = model.experiment.method
    assert isinstance(method, FlowMap), "the shipped model writes in one step"
    # The teacher does not travel with the export.
    model.experiment = replace(model.experiment, method=replace(method, teacher=None))
    shutil.rmtree(SHIPPED["demo"], ignore_errors=True)
    model.save(SHIPPED["demo"])
    size = (SHIPPED["demo"] / "model.safetensors").stat().st_size
    assert size <= LIMIT, f"{size:,} bytes"
    print(f"{SHIPPED['demo']}: {size:,} bytes")


if __name__ == "__main__":
    main()
