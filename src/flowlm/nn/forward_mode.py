"""Forward mode through modules that torch cannot carry it through everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ScaleApart(TorchFunctionMode):
    """Layer norms whose weight is a product of its own, so that their derivative is where they are.

    Of tensors that are shapes alone, by which `flowlm train --dry-run` counts, torch gives the
    derivative of a weighted layer norm a device of its own.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`."""
        if func is not F.layer_norm:
            return func(*args, **(kwargs or {}))

        def apart(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5):
            y = F.layer_norm(x, shape, eps=eps)
            y = y if weight is None else y * weight
            return y if bias is None else y + bias

        return apart(*args, **(kwargs or {}))
