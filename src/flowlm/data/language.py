"""The demo's language: English-like sentences whose every probability is known.

Two clauses, sixteen words, for example: these brown horses feed two fat cows while one old farmer
feeds that loud hen. The topic of the first noun decides every noun and verb after it; a noun takes
its own adjectives only; articles, nouns and verbs agree in number. So nearly every word depends on
others, near and far, and words drawn without each other almost never make a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch

from flowlm.core.oracle import Language
from flowlm.core.rng import Streams
from flowlm.core.types import Batch

Choice = tuple[str, tuple]
"""A word, and what the rest of the sentence must remember once it is written."""

Slot = Callable[[tuple], Sequence[Choice]]
"""The choices at one place of the sentence, given what is remembered. They are equally likely."""

# (singular, plural, adjectives)
Noun = tuple[str, str, tuple[str, str]]


@dataclass(frozen=True)
class Topic:
    """Who acts, what they do, and to what."""

    actors: tuple[Noun, ...]
    verbs: tuple[tuple[str, str], ...]
    objects: tuple[Noun, ...]


TOPICS = (
    Topic(
        actors=(("farmer", "farmers", ("old", "tired")), ("horse", "horses", ("brown", "strong"))),
        verbs=(("feeds", "feed"), ("follows", "follow")),
        objects=(("cow", "cows", ("fat", "calm")), ("hen", "hens", ("small", "loud"))),
    ),
    Topic(
        actors=(
            ("sailor", "sailors", ("brave", "tired")),
            ("captain", "captains", ("proud", "old")),
        ),
        verbs=(("catches", "catch"), ("sees", "see")),
        objects=(("fish", "fishes", ("silver", "fat")), ("crab", "crabs", ("angry", "small"))),
    ),
)

SUBJECT_ARTICLES = (("this", 0), ("one", 0), ("these", 1), ("two", 1))
OBJECT_ARTICLES = (("a", 0), ("that", 0), ("some", 1), ("those", 1))


def _article(memory: tuple) -> Sequence[Choice]:
    topic, number = memory
    fitting = [(w, n) for w, n in SUBJECT_ARTICLES if number is None or n == number]
    return [(word, (topic, n)) for word, n in fitting]


def _adjective(memory: tuple) -> Sequence[Choice]:
    topic, number = memory
    words = {a: None for _, noun in _nouns(topic, "actors") for a in noun[2]}
    return [(word, (topic, number, word)) for word in words]


def _actor(memory: tuple) -> Sequence[Choice]:
    topic, number, adjective = memory
    fitting = [(k, noun) for k, noun in _nouns(topic, "actors") if adjective in noun[2]]
    return [(noun[number], (k, number)) for k, noun in fitting]


def _verb(memory: tuple) -> Sequence[Choice]:
    topic, number = memory
    return [(verb[number], memory) for verb in TOPICS[topic].verbs]


def _object_article(memory: tuple) -> Sequence[Choice]:
    return [(word, (*memory, number)) for word, number in OBJECT_ARTICLES]


def _object_adjective(memory: tuple) -> Sequence[Choice]:
    words = {a: None for _, noun in _nouns(memory[0], "objects") for a in noun[2]}
    return [(word, (*memory, word)) for word in words]


def _object(memory: tuple) -> Sequence[Choice]:
    topic, number, own, adjective = memory
    fitting = [noun for _, noun in _nouns(topic, "objects") if adjective in noun[2]]
    return [(noun[own], (topic, number)) for noun in fitting]


def _joint(memory: tuple) -> Sequence[Choice]:
    return [("and", memory), ("while", memory)]


def _stop(memory: tuple) -> Sequence[Choice]:
    return [(".", ())]


def _nouns(topic: int | None, role: str) -> list[tuple[int, Noun]]:
    chosen = range(len(TOPICS)) if topic is None else [topic]
    return [
        (k, noun)
        for k in chosen
        for noun in (TOPICS[k].actors if role == "actors" else TOPICS[k].objects)
    ]


CLAUSE: tuple[Slot, ...] = (
    _article, _adjective, _actor, _verb, _object_article, _object_adjective, _object,
)  # fmt: skip
SENTENCE: tuple[Slot, ...] = (*CLAUSE, _joint, *CLAUSE, _stop)


@cache
def demo_language() -> tuple[Language, tuple[str, ...]]:
    """The language, and its words in the order of their ids."""
    return compiled(SENTENCE, (None, None))


def compiled(slots: Sequence[Slot], start: tuple) -> tuple[Language, tuple[str, ...]]:
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
    language = Language(
        vocab=len(words),
        length=len(slots),
        source=torch.tensor([arc[0] for arc in arcs]),
        word=torch.tensor([ids[arc[1]] for arc in arcs]),
        target=torch.tensor([arc[2] for arc in arcs]),
        chance=torch.tensor([arc[3] for arc in arcs], dtype=torch.float64),
        final=final,
    )
    return language, words


AHEAD = 32
"""Batches drawn at once: walking the automaton costs nearly as much for one batch as for many."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """Fresh exact samples of a language as batches: a pure function of (seed, step)."""

    language: Language
    batch: int
    seed: int

    def __call__(self, step: int) -> Batch:
        """The batch of a step; nothing is ever seen twice on purpose."""
        block, place = divmod(step, AHEAD)
        tokens = _drawn(self.language, self.batch * AHEAD, self.seed, block)
        tokens = tokens[place * self.batch : (place + 1) * self.batch]
        return Batch(tokens, torch.ones(tokens.shape))


@lru_cache(maxsize=2)
def _drawn(language: Language, count: int, seed: int, block: int) -> torch.Tensor:
    # The third word keeps these streams apart from the noise of a step of the same number.
    return language.sample(Streams.of(seed, block, 1, count=count))
