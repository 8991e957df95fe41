"""Weights in safetensors files: written whole or not at all, checked when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flowlm.errors import Refusal, reason
from flowlm.files import replacing

Weights = Mapping[str, Tensor]
"""Tensors by name."""

_STAMP = "sha256"  # the entry of a safetensors header that holds `fingerprint`


def write_weights(weights: Weights, file: Path) -> None:
    """Write a safetensors file, stamped with its fingerprint, whole or not at all."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        with replacing(file) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(whole, partial, {_STAMP: fingerprint(whole)})
            partial.chmod(mode)  # safetensors makes private files; ours follow the umask
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{file} could not be written ({error}): free some space.") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. A Refusal if it is missing, damaged or something else.

    Where the file is stamped (`write_weights` does it), every bit is checked.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            stamp = (opened.metadata() or {}).get(_STAMP)
    except FileNotFoundError as error:
        raise Refusal(
            f"{file} does not exist yet: it is written with the run's first checkpoint."
        ) from error
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise Refusal(
            f"{file} is damaged or not a safetensors file ({reason(error)}): fetch or write it "
            "again."
        ) from error
    if stamp is not None and stamp != fingerprint(weights):
        raise Refusal(f"{file} is damaged (its checksum differs): fetch or write it again.")
    return weights


def fingerprint(weights: Weights) -> str:
    """sha256, in hex, over names, types, shapes and bits of the tensors, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_shapes(weights: Weights, wanted: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """Refuse weights that are not exactly the wanted ones, naming each that is not.

    `wanted` maps names to shapes. Every tensor must hold floating-point numbers.
    """
    if faults := misfits(weights, wanted):
        raise Refusal(f"{file} does not hold the network that it should: {', '.join(faults)}.")


def misfits(weights: Weights, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Clauses on the tensors that are not those of the wanted names and shapes."""
    faults = [f"it lacks {name}" for name in wanted if name not in weights]
    for name, tensor in weights.items():
        if name not in wanted:
            faults.append(f"it has {name}, which this network has not")
        elif tuple(tensor.shape) != wanted[name]:
            faults.append(f"{name} has shape {tuple(tensor.shape)} instead of {wanted[name]}")
        elif not tensor.is_floating_point():
            faults.append(f"{name} holds {tensor.dtype}")
    return faults
