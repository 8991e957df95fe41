"""Loading a model by any of its names: a directory, a released file or folder, a hub id."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from flowlm.checks import file_name
from flowlm.data.finding import find_tokenizer
from flowlm.data.pretrained import GPT2_END, padded, read_tokenizer
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Notice, Refusal
from flowlm.experiment import read_experiment
from flowlm.hub.transfer import locate
from flowlm.machine.hardware import choose_device
from flowlm.model.fingerprints import read_fingerprints
from flowlm.model.language_model import LanguageModel
from flowlm.model.precision import narrowed, require_device_kind, require_dtype
from flowlm.model.released import is_released, read_released
from flowlm.model.weights import read_weights, require_shapes
from flowlm.nn.hollow import hollow

OF_VOCABULARY = {30_522: "bert-base-uncased", 50_258: "gpt2"}
"""Which tokenizer a released model uses."""


def load(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
) -> LanguageModel:
    """A model, by any of its names.

    `name` is a run or export directory, a shipped model ("demo"), a released `.ckpt` file, a
    folder with a released config.json and model.safetensors, or `hf:owner/name[@revision]` on the
    Hugging Face hub (without `hf:` where no path could be meant). `device` is cpu, cuda, cuda:1,
    ..., mps, or auto, which takes cuda where it is and else the CPU: seeds name texts on one kind
    of device. With `dtype` torch.bfloat16 the blocks and the head are stored and multiplied in it;
    clock, state and softmax stay in float32. `tokenizer` replaces the model's own: a file or
    folder, "bert-base-uncased", "gpt2", or hf:owner/name. A Refusal names what is missing or wrong.
    """
    _require_kinds(name, device, dtype, tokenizer)
    target, place = choose_device(device, float64=True), locate(name)
    if is_released(place):
        released = read_released(place)
        experiment, weights, own = released.experiment, released.weights, released.tokenizer
        file, known = place, None
    else:
        experiment, own, known = read_experiment(place), None, read_fingerprints(place)
        file = place / "model.safetensors"
        weights = read_weights(file)
    head = weights.get("head.weight")
    if head is None or not head.ndim:
        raise Refusal(f"{file} has no tensor head.weight: not a model.")
    fitting = _tokenizer(tokenizer, place, own, len(head))
    length = experiment.data.length
    with hollow():
        network = experiment.method.network(experiment.size, len(head), length)
    require_shapes(weights, {n: tuple(p.shape) for n, p in network.named_parameters()}, file)
    kinds = {name: p.dtype for name, p in narrowed(network, dtype).named_parameters()}
    own = {name: weights[name].to(target, kind, copy=True) for name, kind in kinds.items()}
    network.load_state_dict(own, assign=True)
    return LanguageModel(experiment, network, fitting, length, known)


def _tokenizer(
    chosen: str | Path | None, place: Path, own: Tokenizer | None, vocab: int
) -> Tokenizer | None:
    """The chosen tokenizer, or the one beside or inside the model, or the one it is known for."""
    official = is_released(place)
    if chosen is not None:
        found, source = find_tokenizer(chosen), str(chosen)
    elif own is not None:
        found, source = own, f"The tokenizer in {place}"
    else:
        found, source = read_tokenizer(place) if place.is_dir() else None, f"{place}"
        if (place / "tokenizer.json").exists():
            source = str(place / "tokenizer.json")
    if found is None and official and vocab in OF_VOCABULARY:
        source = OF_VOCABULARY[vocab]
        try:
            found = find_tokenizer(source)
        except Refusal as absent:
            warnings.warn(
                f"{absent} Without its tokenizer ({source}) the model samples tokens only.",
                Notice,
                stacklevel=3,
            )
    if found is None:
        return None
    if official and found.vocab == vocab - 1 and found.id_of(GPT2_END) is not None:
        found = padded(found)
    if found.vocab != vocab:
        raise Refusal(
            f"{source} has {found.vocab} tokens and the model {vocab}: they do not belong together."
        )
    return found


def _require_kinds(name: object, device: object, dtype: object, tokenizer: object) -> None:
    file_name("The name of a model", name)
    if tokenizer is not None:
        file_name("The tokenizer", tokenizer)
    require_device_kind(device)
    require_dtype(dtype)
