"""The names of the released tensors beside ours; every shape is the same."""

from __future__ import annotations

FREQUENCIES = "rotary_emb.inv_freq"
"""The one buffer: 10000^(-2j/k), which `nn.attention.rotary_tables` computes."""

SECOND_TIME = "sigma_map_prime."
"""What only a flow map has."""

TRAINING_ONLY = "learnable_loss_weighting."
"""A network that weighed the training loss; it takes no part in an answer."""

_ENDS = {
    "vocab_embed.embedding": "encoder.table",
    "output_layer.norm_final.weight": "norm.weight",
    "output_layer.linear.weight": "head.weight",
    "output_layer.linear.bias": "head.bias",
    "output_layer.adaLN_modulation.weight": "modulation.weight",
    "output_layer.adaLN_modulation.bias": "modulation.bias",
}
_TIME = {
    "mlp.0.weight": "inner.weight",
    "mlp.0.bias": "inner.bias",
    "mlp.2.weight": "last.weight",
    "mlp.2.bias": "last.bias",
}
_BLOCK = {
    "norm1.weight": "norm1.weight",
    "attn_qkv.weight": "attention.qkv.weight",
    "attn_out.weight": "attention.out.weight",
    "norm2.weight": "norm2.weight",
    "mlp.0.weight": "mlp.0.weight",
    "mlp.0.bias": "mlp.0.bias",
    "mlp.2.weight": "mlp.2.weight",
    "mlp.2.bias": "mlp.2.bias",
    "adaLN_modulation.weight": "modulation.weight",
    "adaLN_modulation.bias": "modulation.bias",
}


def our_names(blocks: int, times: int) -> dict[str, str]:
    """Released name -> our name, for every parameter of a network of this many blocks and times."""
    names = dict(_ENDS)
    for i, prefix in enumerate(("sigma_map.", SECOND_TIME)[:times]):
        names |= {prefix + theirs: f"times.{i}.{ours}" for theirs, ours in _TIME.items()}
    for i in range(blocks):
        names |= {f"blocks.{i}.{a}": f"blocks.{i}.{b}" for a, b in _BLOCK.items()}
    return names
