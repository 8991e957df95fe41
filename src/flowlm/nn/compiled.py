"""Compiling a network from outside: its parameters, their names and its answers stay."""

from __future__ import annotations

import os
import shutil

from flowlm.errors import Refusal
from flowlm.nn.dit import DiT


def compile_parts(network: DiT) -> None:
    """Compile every block as one graph, and the work on a tile of logits, in place.

    All blocks share one compilation. It serves every batch size and length above one; another is
    made for inference, for another precision, for a single text and, on a CPU, for more than 4,096
    tokens. A Refusal where a CPU's code has no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if network.head.weight.device.type == "cpu" and shutil.which(compiler) is None:
        raise Refusal(
            f"--train.compile needs a C++ compiler and there is no {compiler}: install one or "
            "leave the option out."
        )
    for block in network.blocks:
        block.compile(fullgraph=True, dynamic=True)
    network.head.fused = True
