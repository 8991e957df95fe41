"""How large a network is. Torch-free, because the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal

BLOCKS, WIDTH = 2**10, 2**16
"""Several times what the largest networks have: a slip of the finger ends here, and not in hours
of allocating."""

CAP = 1000
"""Attention and tokens are chosen by differences of a few nats: a cap far above them caps nothing,
and one far below leaves no choice."""


@dataclass(frozen=True)
class Size:
    """The trunk's dimensions; the defaults are the paper's (about 85 M without the tables)."""

    blocks: int = 12
    """How many transformer blocks."""
    width: int = 768
    """Width of the residual stream."""
    heads: int = 12
    """Attention heads; they divide the width."""
    condition: int = 128
    """Width of the time embedding that modulates every block."""
    dropout: float = 0.1
    """Share of activations dropped in training."""
    attention_cap: float | None = 50.0
    """Soft cap of attention logits, c tanh(a / c); None for the fused kernel without a cap."""
    output_cap: float | None = 30.0
    """Soft cap of output logits; None for none. With the bayes encoder there is none."""
    positions: Literal["rotary", "learned"] = "rotary"
    """rotary knows distances, which suits packed text; learned adds a vector per position instead,
    for texts whose positions mean something: rotary cannot tell those of an empty text apart."""

    reach: int = 0
    """How many neighbours on each side are mixed into a token's features before the first block;
    0 for none, as published."""

    def __post_init__(self) -> None:
        require_fields(self, "--size.")
        whole("--size.blocks", self.blocks, 1, BLOCKS)
        whole("--size.width", self.width, 1, WIDTH)
        whole("--size.heads", self.heads, 1, WIDTH)
        whole("--size.condition", self.condition, 1, WIDTH)
        whole("--size.reach", self.reach, 0, WIDTH)
        if not 0 <= self.dropout < 1:
            raise Refusal(f"--size.dropout must lie between 0 and 1, not {self.dropout}.")
        for name, cap in (("attention", self.attention_cap), ("output", self.output_cap)):
            if cap is not None and not 1 / CAP <= cap <= CAP:
                raise Refusal(
                    f"--size.{name}-cap must be from {1 / CAP} to {CAP:,}, or None, not {cap}."
                )
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise Refusal(
                f"--size.width {self.width} must be an even multiple of --size.heads {self.heads}."
            )

    def require_reach(self, length: int) -> None:
        """Refuse to look further than a text of `length` tokens goes."""
        if self.reach >= length:
            raise Refusal(
                f"--size.reach {self.reach} goes beyond a text of {length} tokens: choose less."
            )
