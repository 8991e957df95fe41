"""Networks whose weights are shapes alone, to be filled from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_STARTS = {
    Tensor.div, Tensor.fill_, Tensor.zero_, Tensor.uniform_,
    nn.init.kaiming_uniform_, nn.init.uniform_,
}  # fmt: skip
"""What gives a weight its numbers, and leaves its shape."""
_MADE = {torch.randn, torch.zeros}
"""What makes a weight of a shape, with numbers in it."""


@contextmanager
def hollow() -> Iterator[None]:
    """Modules made here hold no numbers: their tensors are of the device "meta".

    Nothing is drawn either: torch's generators stay as they are.
    """
    with torch.device("meta"), _WithoutNumbers():
        yield


class _WithoutNumbers(TorchFunctionMode):
    # Arithmetic on the device "meta" runs in Python, for which torch imports its compiler.

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Skip what would change numbers that are not there."""
        if func in _STARTS:
            return args[0] if args else kwargs["tensor"]
        if func in _MADE:
            func = torch.empty
        if func is torch.full:
            func, args = torch.empty, args[:1]
        return func(*args, **(kwargs or {}))
