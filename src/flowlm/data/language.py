"""A small English-like language, exactly solvable, that the demo learns.

Sixteen words a sentence. Its topic decides who acts, what is done, to what, and where; the number
of the subject is told at the first word and asked for again at the thirteenth; the object agrees
with its verb and with its pronoun at the end. No word can be drawn without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

import torch

from flowlm.core.oracle import Language

Choice = tuple[str, float, Hashable]
"""A word, its weight among the choices, and what the rest of the sentence must remember."""

TOPICS = (
    # (people, verbs with their objects, places)
    (
        (
            ("farmer", "farmers", "old tired"),
            ("horse", "horses", "old brown"),
            ("goat", "goats", "brown hungry"),
        ),
        (
            ("feeds", "feed", ("cow", "cows", "big brown"), ("hen", "hens", "small brown")),
            (
                "pulls",
                "pull",
                ("cart", "carts", "big wooden"),
                ("plough", "ploughs", "heavy wooden"),
            ),
        ),
        ("barn", "field"),
        ("rests", "rest"),
    ),
    (
        (
            ("sailor", "sailors", "old brave"),
            ("captain", "captains", "brave proud"),
            ("gull", "gulls", "white hungry"),
        ),
        (
            ("catches", "catch", ("fish", "fishes", "small silver"), ("crab", "crabs", "big red")),
            ("sees", "see", ("ship", "ships", "big white"), ("wave", "waves", "heavy white")),
        ),
        ("harbour", "beach"),
        ("waits", "wait"),
    ),
    (
        (
            ("cook", "cooks", "tired proud"),
            ("baker", "bakers", "old kind"),
            ("maid", "maids", "kind brave"),
        ),
        (
            (
                "washes",
                "wash",
                ("pot", "pots", "heavy silver"),
                ("spoon", "spoons", "small silver"),
            ),
            ("bakes", "bake", ("cake", "cakes", "big sweet"), ("pie", "pies", "small sweet")),
        ),
        ("oven", "cellar"),
        ("sings", "sing"),
    ),
    (
        (
            ("teacher", "teachers", "kind proud"),
            ("pupil", "pupils", "young tired"),
            ("writer", "writers", "young hungry"),
        ),
        (
            (
                "reads",
                "read",
                ("letter", "letters", "long secret"),
                ("book", "books", "long heavy"),
            ),
            ("draws", "draw", ("map", "maps", "small secret"), ("line", "lines", "long red")),
        ),
        ("desk", "window"),
        ("sleeps", "sleep"),
    ),
)
