"""Exact accounting of memory: what a computation holds at most, and its largest tensor.

Counts the bytes of every storage from its making to its release, so the answer does not depend on
an allocator. Under torch's FakeTensorMode nothing is allocated or computed, and a laptop can
account for a step that only a cluster could run.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Footprint(TorchDispatchMode):
    """Bytes of storages made while it is active (and of those `held` before), as they come and go.

    A kernel's own scratch memory is not seen.
    """

    def __init__(self, *held: Tensor) -> None:
        super().__init__()
        self.live = 0
        """Bytes alive now."""
        self.peak = 0
        """Most bytes alive at once."""
        self.largest = 0
        """Bytes of the largest storage made while active."""
        self._known: set[int] = set()
        for tensor in held:
            self._see(tensor)
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and note what it made."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage: torch.UntypedStorage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
