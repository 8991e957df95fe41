"""How many texts are written at once: as many as fit into a memory budget."""

from __future__ import annotations

from flowlm.chunked.points import chunk_numel
from flowlm.chunked.tiles import tile_side
from flowlm.errors import Refusal
from flowlm.machine.limits import memory
from flowlm.nn.dit import DiT
from flowlm.sampling.sampler import Sampler

BUDGET = 2**30
"""Bytes that a batch of texts may take by default, beside the weights."""


def require_answer(texts: int, length: int) -> None:
    """Refuse to write so many texts that their tokens do not fit into memory."""
    there, wanted = memory(), 8 * texts * length
    if there is not None and wanted > there:
        raise Refusal(
            f"{texts:,} texts of {length:,} tokens take {wanted / 2**30:,.1f} GiB, and there are "
            f"{there / 2**30:,.1f} GiB of memory: ask for fewer at a time, with another seed for "
            "each."
        )


def max_batch_size(sampler: Sampler, network: DiT, length: int, budget: int) -> int:
    """The largest number of texts whose `bytes_needed` stay within the budget, at least one."""
    text, row, most = _parts(sampler, network, length)
    # What is worked on in parts grows with the texts up to what is in hand at once, not beyond.
    return max(1, budget // (text + row), (budget - most) // text)


def bytes_needed(sampler: Sampler, network: DiT, length: int, texts: int) -> int:
    """An upper estimate of what writing `texts` texts allocates at once, beside the weights."""
    text, row, most = _parts(sampler, network, length)
    return texts * text + min(texts * row, most)


def _parts(sampler: Sampler, network: DiT, length: int) -> tuple[int, int, int]:
    """Bytes of a text outside the head, of its logits, and of the most logits that exist at once.

    Where rows are read in parts as well, they count with the logits. The factors count the tensors
    that are alive together at the worst moment of a step.
    """
    size, vocab = network.size, network.vocab
    kind, number = network.head.weight.device.type, network.head.weight.element_size()
    places = sampler.positions(length)
    # Where fewer are worked on than there are, keys and values of the rest are kept.
    cached = 2 * (size.blocks + 1) * length * size.width * number if places < length else 0
    trunk = 24 * places * size.width * number
    # The explicit attention of a capped trunk: logits, their tanh, and the softmax in float32.
    scores = 0 if size.attention_cap is None else 12 * size.heads * places * length
    # The likeliest token and the mean need a tile of float32, a draw needs whole rows of float64.
    tile, chunk = tile_side(kind) ** 2, max(chunk_numel(kind), vocab)
    entry, most = (24, tile) if not sampler.draws else (64, chunk)
    row, most = entry * places * vocab, entry * most
    if network.encoder.in_strips:
        row, most = row + 24 * places * vocab, most + 24 * max(chunk_numel(kind), vocab)
    return trunk + places * network.encoder.state_bytes() + scores + cached, row, most
