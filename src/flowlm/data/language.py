"""The demo's language: English-like sentences whose every probability is known.

Eighteen words, for example: these old sailors often steer that new boat near their harbour and they
never wait for their rope. Two things span the sentence. Its topic decides six words, from the third
to the last; its number is told by seven, from the first to the last but one. The other words are
free. So words drawn without each other almost never make a sentence, and where a few are drawn at a
time they often contradict each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from flowlm.core.oracle import Automaton

Choice = tuple[str, tuple]
"""A word, and what the rest of the sentence must remember once it is written."""

Slot = Callable[[tuple], Sequence[Choice]]
"""The choices at one place of the sentence, given what is remembered. They are equally likely."""


@dataclass(frozen=True)
class Topic:
    """The words of one topic, in the order in which a sentence uses them."""

    actor: tuple[str, str]
    act: tuple[str, str]
    object: str
    place: str
    rest: tuple[str, str]
    tool: str


TOPICS = (
    Topic(("sailor", "sailors"), ("steers", "steer"), "boat", "harbour", ("waits", "wait"), "rope"),
    Topic(("farmer", "farmers"), ("pulls", "pull"), "plough", "field", ("works", "work"), "horse"),
    Topic(("baker", "bakers"), ("kneads", "knead"), "dough", "oven", ("sings", "sing"), "spoon"),
    Topic(("pupil", "pupils"), ("reads", "read"), "book", "school", ("learns", "learn"), "pencil"),
)


def _first(memory: tuple) -> Sequence[Choice]:
    return [("this", (0,)), ("these", (1,))]


def _actor(memory: tuple) -> Sequence[Choice]:
    (number,) = memory
    return [(topic.actor[number], (number, k)) for k, topic in enumerate(TOPICS)]


def _free(*words: str) -> Slot:
    """Any of these words, whatever the sentence."""
    return lambda memory: [(word, memory) for word in words]


def _numbered(singular: str, plural: str) -> Slot:
    """The word that fits the number."""
    return lambda memory: [((singular, plural)[memory[0]], memory)]


def _topical(word: Callable[[Topic], str]) -> Slot:
    """The word that fits the topic."""
    return lambda memory: [(word(TOPICS[memory[1]]), memory)]


def _both(words: Callable[[Topic], tuple[str, str]]) -> Slot:
    """The word that fits topic and number."""
    return lambda memory: [(words(TOPICS[memory[1]])[memory[0]], memory)]


LOOK = _free("old", "new", "fine", "good")
OFTEN = _free("often", "never", "always", "still")
OWN = _numbered("its", "their")

SENTENCE: tuple[Slot, ...] = (
    # these old sailors often steer that new boat
    _first, LOOK, _actor, OFTEN, _both(lambda t: t.act),
    _free("the", "that", "one"), LOOK, _topical(lambda t: t.object),
    # near their harbour
    _free("near", "behind", "beside"), OWN, _topical(lambda t: t.place),
    # and they never wait for their rope
    _free("and", "then", "so"), _numbered("it", "they"), OFTEN, _both(lambda t: t.rest),
    _free("with", "for"), OWN, _topical(lambda t: t.tool),
)  # fmt: skip


@cache
def demo_language() -> tuple[Automaton, tuple[str, ...]]:
    """The language, and its words in the order of their ids."""
    return compiled(SENTENCE, ())


@cache
def demo_fingerprint() -> str:
    """sha256, in hex, of the language and its words."""
    language, words = demo_language()
    digest = hashlib.sha256(repr((words, language.length)).encode())
    parts = language.source, language.token, language.target, language.chance, language.final
    for part in parts:
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def compiled(slots: Sequence[Slot], start: tuple) -> tuple[Automaton, tuple[str, ...]]:
    """The automaton whose states are (place, memory), and its words in the order of their ids."""
    states: dict[Hashable, int] = {(0, start): 0}
    arcs: list[tuple[int, str, int, float]] = []
    layer = [start]
    for place, slot in enumerate(slots):
        after: dict[tuple, None] = {}
        for memory in layer:
            choices = slot(memory)
            for word, then in choices:
                target = states.setdefault((place + 1, then), len(states))
                arcs.append((states[place, memory], word, target, 1 / len(choices)))
                after[then] = None
        layer = list(after)
    words = tuple(sorted({word for _, word, _, _ in arcs}))
    ids = {word: i for i, word in enumerate(words)}
    final = torch.zeros(len(states), dtype=torch.bool)
    final[[states[len(slots), memory] for memory in layer]] = True
    language = Automaton(
        vocab=len(words),
        length=len(slots),
        source=torch.tensor([arc[0] for arc in arcs]),
        token=torch.tensor([ids[arc[1]] for arc in arcs]),
        target=torch.tensor([arc[2] for arc in arcs]),
        chance=torch.tensor([arc[3] for arc in arcs], dtype=torch.float64),
        final=final,
    )
    return language, words
