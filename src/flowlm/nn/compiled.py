"""Compiling a network from outside: its parameters, their names and its answers stay."""

from __future__ import annotations

import os
import shutil

from flowlm.errors import Refusal
from flowlm.nn.dit import DiT


def compile_parts(network: DiT) -> None:
    """Compile every block as one graph, and the work on a tile of logits, in place.

    All blocks share one compilation. It serves every batch size and length above one; another is
    made for inference, for another precision, for a single sequence and, on a CPU, for more than
    4,096 tokens. A Refusal where a CPU's code has no compiler.
    """
    _require_compiler(network)
    for part in _networks(network):
        for block in part.blocks:
            block.compile(fullgraph=True, dynamic=True)
        part.head.fused = part.compiled = True


def compile_whole(network: DiT) -> None:
    """Compile everything up to the head as one graph, in place, for one size of input at a time.

    A posterior encoder, which works through its rows in parts, stays as it is before that graph.
    For writing many small batches at low latency: on CUDA the whole network is one CUDA graph. A
    Refusal where a CPU's code has no compiler.
    """
    _require_compiler(network)
    for part in _networks(network):
        several = part.encoder.leave_out()
        part.compile(fullgraph=not several, dynamic=False, mode="reduce-overhead")


def _networks(network: DiT) -> list[DiT]:
    """The network, and one that it holds."""
    return [part for part in network.modules() if isinstance(part, DiT)]


def _require_compiler(network: DiT) -> None:
    compiler = os.environ.get("CXX", "g++")
    if network.head.weight.device.type == "cpu" and shutil.which(compiler) is None:
        raise Refusal(
            f"Compiling needs a C++ compiler and there is no {compiler}: install one or do without "
            "compiling."
        )
