"""How many texts are written at once: as many as fit into a memory budget."""

from __future__ import annotations

from flowlm.experiment import AnyMethod
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.continuous import Continuous
from flowlm.nn.dit import DiT
from flowlm.nn.head import CHUNK

BUDGET = 2**30
"""Bytes that a batch of texts may take by default, beside the weights."""


def texts_at_once(method: AnyMethod, network: DiT, length: int, budget: int) -> int:
    """The largest number of texts whose `bytes_needed` stay within the budget, at least one."""
    text, row, most = _parts(method, network, length)
    # The head's share grows with the texts up to its largest chunk, and not beyond.
    return max(1, budget // (text + row), (budget - most) // text)


def bytes_needed(method: AnyMethod, network: DiT, length: int, texts: int) -> int:
    """An upper estimate of what writing `texts` texts allocates at once, beside the weights."""
    text, row, most = _parts(method, network, length)
    return texts * text + min(texts * row, most)


def _parts(method: AnyMethod, network: DiT, length: int) -> tuple[int, int, int]:
    """Bytes of a text outside the head, of its rows in the head, and of the head's largest chunk.

    The factors count the tensors that are alive together at the worst moment of a step.
    """
    size, vocab = network.size, network.vocab
    number = network.head.weight.element_size()
    # Left to right, one place at a time is worked on, and keys and values of the rest are kept.
    one = isinstance(method, Autoregressive)
    places = 1 if one else length
    cached = 2 * (size.blocks + 1) * length * size.width * number if one else 0
    trunk = 24 * places * size.width * number
    dense = isinstance(method, Continuous) and method.encoder != "projected"
    state = 8 * places * (vocab if dense else size.width) * 4
    # The explicit attention of a capped trunk: logits, their tanh, and the softmax in float32.
    scores = 0 if size.attention_cap is None else 12 * size.heads * places * length
    # A draw takes rows of float64; the likeliest token and the mean take rows of float32.
    entry = 16 if isinstance(method, Continuous) else 64
    return trunk + state + scores + cached, entry * places * vocab, entry * max(CHUNK, vocab)
