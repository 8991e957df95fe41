"""How large a network is. Torch-free, because the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowlm.errors import Refusal


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
    """Soft cap of output logits; None for none."""
    positions: Literal["rotary", "absolute"] = "rotary"
    """rotary knows distances, which suits packed text; absolute adds a learned vector per place,
    for texts whose places mean something. Rotary alone cannot tell places of an empty text."""

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise Refusal(
                f"--size.width {self.width} must be an even multiple of --size.heads {self.heads}."
            )
