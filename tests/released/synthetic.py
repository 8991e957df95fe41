"""Small checkpoints in the released format with random weights, and a second network to run them.

Written from the description of the format alone: nothing here imports flowlm.
"""

from __future__ import annotations

import json
import math
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a small model."""

    two_times: bool = False
    vocab: int = 23
    width: int = 16
    heads: int = 2
    condition: int = 6
    blocks: int = 2
    length: int = 7
    weighting: bool = False

    @property
    def model(self) -> dict[str, Any]:
        return {
            "name": "small", "hidden_size": self.width, "cond_dim": self.condition,
            "length": self.length, "n_blocks": self.blocks, "n_heads": self.heads, "dropout": 0.1,
        }  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        algo = {"name": "dos", "backbone": "dit"}  # says nothing of flow or flow map
        return {"algo": algo, "model": self.model, "sampling": {"steps": [1, 8], "p": 1.0}}


def frequencies(shape: Shape) -> Tensor:
    per_head = shape.width // shape.heads
    return torch.tensor([10_000 ** (-2 * j / per_head) for j in range(per_head // 2)])


def parameters(shape: Shape, seed: int = 0) -> Tensors:
    """Every parameter in the order of the network; scales large enough for the caps to matter."""
    v, d, c = shape.vocab, shape.width, shape.condition
    rng = torch.Generator().manual_seed(seed)
    found: Tensors = {}

    def draw(name: str, *size: int, scale: float | None = None, middle: float = 0.0) -> None:
        scale = scale if scale is not None else 1 / math.sqrt(size[-1])
        found[name] = middle + scale * torch.randn(size, generator=rng)

    def layer(name: str, rows: int, columns: int) -> None:
        draw(f"{name}.weight", rows, columns)
        draw(f"{name}.bias", rows, scale=0.3)

    def time(prefix: str) -> None:
        layer(f"{prefix}.mlp.0", c, 256)
        layer(f"{prefix}.mlp.2", c, c)

    draw("vocab_embed.embedding", v, d)
    time("sigma_map")
    if shape.two_times:
        time("sigma_map_prime")
    if shape.weighting:
        time("learnable_loss_weighting.s_embed")
        layer("learnable_loss_weighting.mlp.0", 8, c)
    for i in range(shape.blocks):
        at = f"blocks.{i}"
        draw(f"{at}.norm1.weight", d, scale=0.2, middle=1)
        draw(f"{at}.attn_qkv.weight", 3 * d, d, scale=1.0)
        draw(f"{at}.attn_out.weight", d, d)
        draw(f"{at}.norm2.weight", d, scale=0.2, middle=1)
        layer(f"{at}.mlp.0", 4 * d, d)
        layer(f"{at}.mlp.2", d, 4 * d)
        layer(f"{at}.adaLN_modulation", 6 * d, c)
    draw("output_layer.norm_final.weight", d, scale=0.2, middle=1)
    draw("output_layer.linear.weight", v, d, scale=4.0)
    draw("output_layer.linear.bias", v, scale=4.0)
    layer("output_layer.adaLN_modulation", 2 * d, c)
    return found


def write_folder(folder: Path, shape: Shape, seed: int = 0) -> Tensors:
    """config.json and model.safetensors; returns the weights that count."""
    averaged = parameters(shape, seed)
    folder.mkdir(parents=True)
    config = {"config": shape.config, "vocab_size": shape.vocab}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(averaged | {"rotary_emb.inv_freq": frequencies(shape)}, folder / "model.safetensors")
    return averaged


def checkpoint(shape: Shape, seed: int = 0, compiled: bool = False) -> tuple[dict, Tensors]:
    """The content of a .ckpt, and the weights that count: the averaged ones."""
    raw, averaged = parameters(shape, seed + 1), parameters(shape, seed)
    prefix = "backbone._orig_mod." if compiled else "backbone."
    state = OrderedDict((prefix + name, tensor) for name, tensor in raw.items())
    state[prefix + "rotary_emb.inv_freq"] = frequencies(shape)
    for name, tensor in raw.items():
        state["teacher_model." + name] = tensor + 1
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"epoch_progress": {"current": {"completed": 1}}}},
        "callbacks": {"ModelCheckpoint{'every': 1}": {"best_model_path": "", "best": None}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"config": shape.config},
        "ema": {
            "decay": 0.9999,
            "num_updates": 100,
            "shadow_params": list(averaged.values()),
        },
        "sampler": {"random_state": None},
    }
    return content, averaged


def write_ckpt(file: Path, content: dict, omegaconf: bool = False) -> None:
    """A Lightning file; the configuration as the classes of omegaconf, or as plain dicts."""
    with pretended() as make:
        if omegaconf:
            hyper = content["hyper_parameters"]
            content = content | {
                "hyper_parameters": hyper | {"config": make(hyper["config"])},
            }
        torch.save(content, file)


@contextmanager
def pretended() -> Iterator[Any]:
    """omegaconf and tokenizer classes that are there while a file is written, and then no more."""
    names = {
        "omegaconf": (),
        "omegaconf.base": ("Metadata", "ContainerMetadata"),
        "omegaconf.nodes": ("AnyNode",),
        "omegaconf.dictconfig": ("DictConfig",),
        "omegaconf.listconfig": ("ListConfig",),
        "transformers": (),
        "transformers.models": (),
        "transformers.models.gpt2": (),
        "transformers.models.gpt2.tokenization_gpt2_fast": ("GPT2TokenizerFast",),
        "transformers.models.bert": (),
        "transformers.models.bert.tokenization_bert": ("BertTokenizer", "WordpieceTokenizer"),
    }
    made = {}
    for module, classes in names.items():
        made[module] = types.ModuleType(module)
        for name in classes:
            setattr(made[module], name, type(name, (), {"__module__": module}))
    missing = object()
    before = {module: sys.modules.get(module, missing) for module in made}
    sys.modules.update(made)

    def build(module: str, name: str, **state: Any) -> Any:
        instance = getattr(made[module], name)()
        instance.__dict__.update(state)
        return instance

    def wrap(value: Any, parent: Any = None, key: Any = None) -> Any:
        # State as omegaconf 2.4 pickles it, types and cycles included.
        kind = type(value) if isinstance(value, dict | list) else None
        metadata = {
            "ref_type": Any, "object_type": kind, "optional": True, "key": key, "flags": {},
            "flags_root": False, "resolver_cache": defaultdict(dict, {"env": {"a": 1}}),
        }  # fmt: skip
        if kind is None:
            about = build("omegaconf.base", "Metadata", **metadata)
            return build("omegaconf.nodes", "AnyNode", _metadata=about, _parent=parent, _val=value)
        about = build("omegaconf.base", "ContainerMetadata", **metadata, key_type=Any)
        where = ("dictconfig", "DictConfig") if kind is dict else ("listconfig", "ListConfig")
        node = build(f"omegaconf.{where[0]}", where[1], _metadata=about, _parent=parent)
        if kind is dict:
            node._content = {k: wrap(v, node, k) for k, v in value.items()}
        else:
            node._content = [wrap(v, node, i) for i, v in enumerate(value)]
        return node

    try:
        yield wrap
    finally:
        for module, old in before.items():
            if old is missing:
                del sys.modules[module]
            else:
                sys.modules[module] = old


# --- the second network ------------------------------------------------------------------------


def answer(p: Tensors, shape: Shape, x: Tensor, *taus: Tensor) -> Tensor:
    """Probabilities (b, l, v) at a one-hot-space point x (b, l, v) and clock times (b,).

    The network of the paper in double precision, one text, one head and one query at a time.
    """
    p = {name: tensor.double() for name, tensor in p.items()}
    texts = []
    for b in range(len(x)):
        c = torch.zeros(shape.condition, dtype=torch.float64)
        for prefix, tau in zip(("sigma_map", "sigma_map_prime"), taus):
            waves = [float(tau[b]) * math.exp(-math.log(10_000) * j / 128) for j in range(128)]
            z = torch.tensor([math.cos(w) for w in waves] + [math.sin(w) for w in waves]).double()
            z = p[f"{prefix}.mlp.0.weight"] @ z + p[f"{prefix}.mlp.0.bias"]
            z = z / (1 + torch.exp(-z))
            c = c + p[f"{prefix}.mlp.2.weight"] @ z + p[f"{prefix}.mlp.2.bias"]
        c = c / (1 + torch.exp(-c))
        h = x[b].double() @ p["vocab_embed.embedding"]
        for i in range(shape.blocks):
            own = {k.split(".", 2)[2]: t for k, t in p.items() if f"blocks.{i}." in k}
            h = _block(h, c, own, shape.heads)
        m = p["output_layer.adaLN_modulation.weight"] @ c
        shift, scale = (m + p["output_layer.adaLN_modulation.bias"]).split(shape.width)
        h = _norm(h, p["output_layer.norm_final.weight"]) * (1 + scale) + shift
        z = h @ p["output_layer.linear.weight"].T + p["output_layer.linear.bias"]
        z = 30 * torch.tanh(z / 30)
        texts.append(torch.exp(z - torch.logsumexp(z, 1, keepdim=True)))
    return torch.stack(texts)


def _block(h: Tensor, c: Tensor, p: Tensors, heads: int) -> Tensor:
    d = h.shape[1]
    m = (p["adaLN_modulation.weight"] @ c + p["adaLN_modulation.bias"]).reshape(6, d)
    y = _norm(h, p["norm1.weight"]) * (1 + m[1]) + m[0]
    h = h + m[2] * (_attention(y, p["attn_qkv.weight"], heads) @ p["attn_out.weight"].T)
    y = _norm(h, p["norm2.weight"]) * (1 + m[4]) + m[3]
    y = y @ p["mlp.0.weight"].T + p["mlp.0.bias"]
    y = y / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return h + m[5] * (y @ p["mlp.2.weight"].T + p["mlp.2.bias"])


def _attention(y: Tensor, qkv: Tensor, heads: int) -> Tensor:
    """Rows of `qkv` are ordered (q | k | v, head, dimension)."""
    length, d = y.shape
    k = d // heads
    out = torch.zeros(length, d, dtype=torch.float64)
    for head in range(heads):
        rows = [qkv[part * d + head * k : part * d + (head + 1) * k] for part in range(3)]
        query, key = (_turn(y @ row.T) for row in rows[:2])
        value = y @ rows[2].T
        for i in range(length):
            score = torch.stack([(query[i] * key[j]).sum() / k**0.5 for j in range(length)])
            score = 50 * torch.tanh(score / 50)
            share = torch.exp(score - score.max())
            out[i, head * k : (head + 1) * k] = (share / share.sum()) @ value
    return out


def _turn(rows: Tensor) -> Tensor:
    """Rotary positions: the pair (j, j + k/2) turns by place / 10000^(2j/k)."""
    k = rows.shape[1]
    out = rows.clone()
    for place in range(len(rows)):
        for j in range(k // 2):
            angle = place / 10_000 ** (2 * j / k)
            a, b = rows[place, j], rows[place, j + k // 2]
            out[place, j] = a * math.cos(angle) - b * math.sin(angle)
            out[place, j + k // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return weight * centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-5)
