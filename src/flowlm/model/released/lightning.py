"""The Lightning container: `.ckpt`, whose averaged weights are a list without names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from flowlm.data.pretrained import wordpiece
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.model.released.found import Found
from flowlm.model.released.names import FREQUENCIES, SECOND_TIME, TRAINING_ONLY
from flowlm.model.released.pickled import Inert, read_pickled, unwrapped

_GROUPS = ("vocab_embed.", "sigma_map.", SECOND_TIME, TRAINING_ONLY, "blocks.", "output_layer.")
"""Parts of the network in the order of its parameters."""


def read_lightning(file: Path) -> Found:
    """The averaged weights of a `.ckpt`, under the names of the state_dict beside them.

    A Refusal if the two lists differ in number, shapes or order.
    """
    content = read_pickled(file)
    state, ema = content.get("state_dict"), content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not _are_tensors(state) or not isinstance(shadow, list | tuple):
        raise Refusal(f"{file} lacks state_dict or ema.shadow_params: it is not a released model.")
    named = _bare(state, file)
    order = [name for name in named if name != FREQUENCIES]
    _require_order(order, file)
    if len(shadow) != len(order):
        raise Refusal(
            f"{file} has {len(shadow)} averaged weights for {len(order)} parameters: which belongs "
            "to which cannot be told."
        )
    wrong = [
        f"{name} ({tuple(named[name].shape)} and {_shape(average)})"
        for name, average in zip(order, shadow)
        if not isinstance(average, Tensor) or average.shape != named[name].shape
    ]
    if wrong:
        raise Refusal(f"{file} has averaged weights of another shape for {', '.join(wrong)}.")
    hyper = unwrapped(content.get("hyper_parameters"))
    hyper = hyper if isinstance(hyper, dict) else {}
    averaged = named | dict(zip(order, shadow))
    return Found(file, averaged, _stated(hyper), _tokenizer(hyper.get("tokenizer"), file))


def _are_tensors(state: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    )


def _bare(state: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Names without `backbone.` and `_orig_mod.`; what belongs to a teacher is left out."""
    bare: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("teacher"):
            continue
        short = name.replace("._orig_mod.", ".").removeprefix("backbone.")
        if not name.startswith("backbone.") or short in bare:
            raise Refusal(f"{file} has a tensor {name}, which no released model has.")
        bare[short] = tensor
    return bare


def _require_order(names: Sequence[str], file: Path) -> None:
    """A list without names is only as good as the order that names it.

    Blocks have equal shapes, so sorted names (blocks.10 before blocks.2) would pass a check of
    shapes and load the wrong blocks.
    """
    places = []
    inside: dict[int, list[str]] = {}
    for name in names:
        group = next((i for i, prefix in enumerate(_GROUPS) if name.startswith(prefix)), None)
        if group is None:
            raise Refusal(f"{file} has a tensor {name}, which no released model has.")
        block = re.match(r"blocks\.(\d+)\.(.*)", name)
        places.append((group, int(block[1]) if block else 0))
        if block:
            inside.setdefault(int(block[1]), []).append(block[2])
    alike = all(block == next(iter(inside.values())) for block in inside.values())
    if places != sorted(places) or not alike:
        raise Refusal(
            f"{file} does not list its parameters in the order of the network, so its averaged "
            "weights cannot be told apart: fetch the original file."
        )


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else "no tensor"


def _stated(hyper: Mapping[str, Any]) -> dict[str, Any]:
    config = unwrapped(hyper.get("config"))
    model = unwrapped(config.get("model")) if isinstance(config, dict) else None
    stated = {k: unwrapped(v) for k, v in model.items()} if isinstance(model, dict) else {}
    if type(hyper.get("vocab_size")) is int:
        stated["vocab_size"] = hyper["vocab_size"]
    return stated


def _tokenizer(kept: Any, file: Path) -> Tokenizer | None:
    """The tokenizer that was pickled with the model: its JSON, or BERT's pieces."""
    if not isinstance(kept, Inert):
        return None
    library, pieces = kept.get("_tokenizer"), kept.get("vocab")
    if isinstance(library, Inert) and isinstance(library.state, bytes):
        text = library.state.decode("utf-8", "replace")
        return Tokenizer.from_json(text, f"The tokenizer in {file}")
    if isinstance(pieces, dict) and "[UNK]" in pieces:
        sound = all(isinstance(k, str) and type(v) is int and v >= 0 for k, v in pieces.items())
        return wordpiece(pieces) if sound else None
    return None
