"""Content of both containers: tensors under released names, and the sizes stated beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowlm.data.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Found:
    """The content of one container, checked for nothing yet.

    `file` is what a refusal names; `stated` is the configuration of the model (hidden_size,
    cond_dim, n_blocks, n_heads, length, perhaps vocab_size); a `.ckpt` may hold a tokenizer.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    stated: Mapping[str, Any]
    tokenizer: Tokenizer | None = None
