"""Arguments of a model, checked: one sentence for each that does not fit."""

from __future__ import annotations

from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.types import FREE, Tokens
from flowlm.errors import Refusal


def prompt_ids(prompt: object, n: int, length: int, vocab: int) -> Tokens:
    """A prompt as int64 ids (n, l), `FREE` where the model is to write."""
    if not _plain(prompt) or prompt.is_floating_point() or prompt.is_complex():
        raise Refusal(f"The prompt must be a tensor of whole numbers, and it is {_kind(prompt)}.")
    if prompt.dtype == torch.bool:
        raise Refusal("The prompt is a mask of bools: give ids of tokens, and -1 elsewhere.")
    if tuple(prompt.shape) != (n, length):
        raise Refusal(
            f"The prompt has shape {tuple(prompt.shape)} instead of {(n, length)}: give every text "
            "a row, with -1 where the model is to write."
        )
    ids = prompt.long()
    if bool(((ids < FREE) | (ids >= vocab)).any()):
        raise Refusal(f"The prompt has tokens outside 0 to {vocab - 1}.")
    return ids


def text_ids(tokens: object, vocab: int) -> Tokens:
    """Whole texts as int64 ids (n, l)."""
    if not _plain(tokens) or tokens.is_floating_point() or tokens.is_complex():
        raise Refusal(f"Tokens must be a tensor of whole numbers, not {_kind(tokens)}.")
    if tokens.ndim != 2:
        raise Refusal(f"Tokens have shape {tuple(tokens.shape)}: give every text a row, (n, l).")
    ids = tokens.long()
    if bool(((ids < 0) | (ids >= vocab)).any()):
        raise Refusal(f"There are tokens outside 0 to {vocab - 1}: give texts that are written.")
    return ids


def noisy_point(x: object, length: int, vocab: int) -> Float[Tensor, "b l v"]:
    """A point of one-hot space: at least one text of the model's length."""
    if not _plain(x) or not x.is_floating_point():
        raise Refusal(f"The point must be a tensor of floats (b, l, v), and it is {_kind(x)}.")
    if x.ndim != 3 or x.shape[-1] != vocab:
        raise Refusal(
            f"The point has shape {tuple(x.shape)}, and the vocabulary is {vocab}: give a point of "
            "one-hot space, (b, l, v)."
        )
    if x.shape[1] != length or not len(x):
        raise Refusal(
            f"The point has {len(x)} texts of {x.shape[1]} places: give at least one, of the "
            f"model's {length} places."
        )
    if not bool(x.float().isfinite().all()):  # as it is read
        raise Refusal("The point has entries that are infinite or no number: give finite ones.")
    return x


def clock_time(name: str, tau: object, x: Float[Tensor, "b l v"]) -> Float[Tensor, "b #l"]:
    """A clock time of every text or token of x, float32 and on its device."""
    wanted = f"{name} must be clock times tau in [0, 1], a tensor of shape (b,) or (b, l)"
    if not _plain(tau) or tau.dtype == torch.bool or tau.is_complex():
        raise Refusal(f"{wanted}, and it is {_kind(tau)}.")
    if tau.shape not in (x.shape[:1], x.shape[:2]):
        raise Refusal(f"{wanted}, and it has shape {tuple(tau.shape)}.")
    if not bool(((tau >= 0) & (tau <= 1)).all()):  # what is no number fails a comparison
        raise Refusal(f"{wanted}, and some lie outside.")
    return (tau[:, None] if tau.ndim == 1 else tau).to(x.device).float()


def _plain(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor with numbers, one after the other."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"of the type {type(value).__name__}"
    return f"one of {value.dtype}" if _plain(value) else "one without plain numbers"
