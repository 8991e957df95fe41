"""From a released checkpoint, in either container, to an experiment and weights of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowlm.data.pretrained import GPT2_END
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.model.released.folder import read_folder
from flowlm.model.released.found import Found
from flowlm.model.released.lightning import read_lightning
from flowlm.model.released.names import FREQUENCIES, SECOND_TIME, TRAINING_ONLY, our_names
from flowlm.model.weights import require_shapes
from flowlm.nn.attention import rotary_frequencies
from flowlm.nn.hollow import hollow
from flowlm.nn.size import Size
from flowlm.sampling.jump import Jumps
from flowlm.sampling.ode import Euler

ENDS = {30_522: ("[CLS]", "[SEP]"), 50_258: (GPT2_END, GPT2_END)}
"""Tokens at the first and last place of every text, by vocabulary, as the corpora were packed."""

GAMMA = {30_522: 0.8, 50_258: 1.0}
"""Fresh noise between jumps in the published tables, by vocabulary: LM1B's and OpenWebText's."""


@dataclass(frozen=True, eq=False)
class Released:
    """A released model in our terms.

    `weights` are the averaged ones under our names; a `.ckpt` may carry a tokenizer.
    """

    experiment: Experiment
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer | None


def read_released(place: Path) -> Released:
    """Read a `.ckpt` file, or a folder with config.json and model.safetensors.

    Sizes are those of the tensors, and the configuration in the file must say the same. A flow
    map is what has a second time embedding. A Refusal names every tensor that is missing, extra
    or misshapen.
    """
    found = read_lightning(place) if place.is_file() else read_folder(place)
    file = found.file
    size, vocab = _sizes(found)
    times = 2 if any(name.startswith(SECOND_TIME) for name in found.tensors) else 1
    method = Flow() if times == 1 else FlowMap()
    sampler = Euler() if times == 1 else Jumps(gamma=GAMMA.get(vocab, 0.0))
    length: int = found.stated["length"]
    with hollow():
        network = method.network(size, vocab, length)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    names = our_names(size.blocks, times)
    wanted = {theirs: shapes[ours] for theirs, ours in names.items()}
    wanted[FREQUENCIES] = (size.width // size.heads // 2,)
    counted = {k: t for k, t in found.tensors.items() if not k.startswith(TRAINING_ONLY)}
    require_shapes(counted, wanted, file)
    _require_frequencies(found.tensors[FREQUENCIES], size, file)
    begin, end = ENDS.get(vocab, (None, None))
    name = "released-flow" if times == 1 else "released-flow-map"
    return Released(
        Experiment(name, method, sampler, Text(length=length, begin=begin, end=end), size),
        {ours: found.tensors[theirs] for theirs, ours in names.items()},
        found.tokenizer,
    )


def _sizes(found: Found) -> tuple[Size, int]:
    """The stated size, and the vocabulary of the token table, which must go together."""
    table, time, waves = (
        found.tensors[name].shape if name in found.tensors else ()
        for name in ("vocab_embed.embedding", "sigma_map.mlp.2.weight", FREQUENCIES)
    )
    if len(table) != 2:
        raise Refusal(f"{found.file} lacks vocab_embed.embedding (v, d): it is no released model.")
    stated = found.stated
    for name in ("hidden_size", "cond_dim", "n_blocks", "n_heads", "length"):
        if type(stated.get(name)) is not int or stated[name] < 1:
            raise Refusal(f"The configuration in {found.file} states no {name}: fetch it again.")
    measured = {"vocab_size": table[0], "hidden_size": table[1]}
    measured |= {"cond_dim": time[0]} if time else {}
    measured |= {"n_heads": table[1] // (2 * waves[0])} if waves and waves[0] else {}
    for name, value in measured.items():
        if stated.get(name, value) != value:
            raise Refusal(
                f"The configuration of {found.file} says {name} {stated[name]}, and its tensors "
                f"are of {value}: they do not belong together."
            )
    if stated["n_blocks"] > len(found.tensors):
        raise Refusal(f"{found.file} does not hold {stated['n_blocks']} blocks: fetch it again.")
    return Size(
        blocks=stated["n_blocks"],
        width=stated["hidden_size"],
        heads=stated["n_heads"],
        condition=stated["cond_dim"],
        attention_cap=50.0,
        output_cap=30.0,
    ), table[0]


def _require_frequencies(found: Tensor, size: Size, file: Path) -> None:
    """The rotary positions are computed, not read; so what is stored must be what is computed."""
    wanted = rotary_frequencies(size.width // size.heads, found.device)
    if not torch.allclose(found.float(), wanted, rtol=1e-4):
        raise Refusal(f"{file} has another {FREQUENCIES} than 10000^(-2j/k): an unknown network.")
