"""The hub's container: a folder with config.json and model.safetensors, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.files import write_text
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import LinearInput, ProjectedInput
from flowlm.model.released.found import Found
from flowlm.model.released.names import FREQUENCIES, our_names
from flowlm.model.weights import Weights, read_weights, write_weights
from flowlm.nn.attention import rotary_frequencies


def read_folder(folder: Path) -> Found:
    """Tensors and stated sizes of a folder. A Refusal if a file is missing or not what it is."""
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model, vocab = content["config"]["model"], content["vocab_size"]
        stated = {**model, "vocab_size": vocab}
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read ({error}): fetch it again.") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Refusal(
            f"{file} is not the configuration of a released model: it needs config.model and "
            "vocab_size."
        ) from error
    if type(vocab) is not int:
        raise Refusal(f"{file} states a vocab_size that is no whole number: fetch it again.")
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise Refusal(f"{weights} is missing: fetch the whole folder.")
    return Found(weights, read_weights(weights), stated)


def write_folder(experiment: Experiment, weights: Weights, vocab: int, folder: Path) -> None:
    """Write a model of ours into an existing folder in the released format, in float32.

    A Refusal if the released network could not answer as this one does.
    """
    _require_expressible(experiment)
    size = experiment.size
    times = experiment.method.times
    names = our_names(size.blocks, times)
    tensors = {theirs: weights[ours].detach().float() for theirs, ours in names.items()}
    tensors[FREQUENCIES] = rotary_frequencies(size.width // size.heads, torch.device("cpu"))
    assert isinstance(experiment.data, Text)
    config = {
        "algo": {
            "name": "flm",
            "backbone": "dit",
            "causal_attention": False,
            "double_temb": times == 2,
            "learnable_loss_weighting": False,
        },
        "model": {
            "type": "ddit",
            "hidden_size": size.width,
            "cond_dim": size.condition,
            "length": experiment.data.length,
            "n_blocks": size.blocks,
            "n_heads": size.heads,
            "dropout": size.dropout,
            "scale_by_sigma": True,
        },
    }
    text = json.dumps({"config": config, "vocab_size": vocab}, indent=2) + "\n"
    write_weights(tensors, folder / "model.safetensors")
    write_text(text, folder / "config.json")


Published = ProjectedInput | LinearInput
Expressible = Flow | FlowMap
"""Methods whose networks have names in the released format."""


def _require_expressible(experiment: Experiment) -> None:
    method, size = experiment.method, experiment.size
    if not isinstance(method, Expressible):
        raise Refusal("The released format holds flows and flow maps only: this is neither.")
    for what, is_so in (
        ("input x @ E (projected or linear)", isinstance(method.input, Published)),
        ("decoding clock", method.clock == "decoding"),
        ("rotary positions", size.positions == "rotary"),
        ("reach 0", size.reach == 0),
        ("attention cap 50", size.attention_cap == 50),
        ("output cap 30", size.output_cap == 30),
        ("text of a stated length", isinstance(experiment.data, Text)),
    ):
        if not is_so:
            raise Refusal(
                f"The released format has a fixed network with {what}, and this model differs: "
                "keep it as a flowlm export."
            )
