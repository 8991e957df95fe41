"""Which trainings make up the study.

Equal compute: a step that reads whole rows takes longer, so the linear encoder takes more steps, in
the ratio that `python -m studies.encoders ratio` measures, rounded in favour of the linear
one. Learning rates and the linear table's gain are the best of those that were tried (`tuning`).
"""

from __future__ import annotations

from dataclasses import replace

from studies.encoders.cells import Cell
from studies.encoders.inputs import Variant

SEEDS = (0, 1, 2)
BAYES, POSTERIOR, LINEAR = Variant("bayes"), Variant("posterior"), Variant("linear", gain=10.0)

ALL = (POSTERIOR, BAYES, LINEAR)
COMPARED = {
    "text": (BAYES, LINEAR), "text-2048": ALL, "text-512": ALL, "characters": ALL, "dialects": ALL,
    "demo": (POSTERIOR, LINEAR),
}  # fmt: skip


def reach(world: str, variant: Variant) -> int:
    """Neighbours, as the recipes of text have them; on sentences they do not help `posterior`."""
    rows = variant.name == "bayes" or (variant.name == "posterior" and world in TEXTS)
    return 2 if rows else 0


TEXT = Cell("", "text", "flow", BAYES, 0, 1600, 3e-3, 8, 4, 128)
SENTENCES = Cell("", "dialects", "flow", POSTERIOR, 0, 1500, 3e-3, 32, 6, 64)
TEXTS = ("text", "text-2048", "text-512", "characters")
RATIO = dict.fromkeys(TEXTS, 1.5) | dict.fromkeys(("dialects", "demo"), 1.2)
"""Steps of the linear encoder for one of the others."""

WRITES = {
    "text": {"flow": ((8, 48), (32, 48), (128, 32)), "map": ((1, 128), (2, 128), (4, 128))},
    "dialects": {
        "flow": ((8, 256), (32, 256), (128, 256)), "map": ((1, 1000), (2, 1000), (4, 1000)),
    },
}  # fmt: skip
WRITES["demo"] = WRITES["dialects"]
WRITES |= {name: {"flow": ((8, 48), (32, 48))} for name in TEXTS[1:]}
MAP_SHARE = 0.45
"""Steps of a map for one of its flow."""
TEMPERATURES = (1.0, 0.8, 0.7, 0.4)
"""At which flows write."""
TAUGHT = {"text bayes": 0.7}
"""At which a map distils its flow, where that is not 1."""


def study() -> list[Cell]:
    """Flow and map of the encoders in two worlds, three seeds; and the judge of the text."""
    return [judge("text", 4000), *trained(TEXT, SENTENCES)]


def small() -> list[Cell]:
    """The same where the vocabulary fits into the width: one dialect, 61 words."""
    return trained(replace(SENTENCES, world="demo", steps=1000))


def vocabularies() -> list[Cell]:
    """Flows of the same text in smaller vocabularies, shorter, seed 0, with a judge for each."""
    cells = []
    for world in TEXTS[1:]:
        of = replace(TEXT, world=world, steps=1000)
        cells += [judge(world, 2500), *(flow(of, variant, 0) for variant in COMPARED[world])]
    return cells


def judge(world: str, steps: int) -> Cell:
    """The autoregressive model that says how likely texts are."""
    return replace(TEXT, name=f"{world}-judge", world=world, kind="judge", steps=steps, lr=1e-3)


def trained(*worlds: Cell) -> list[Cell]:
    """Flow and map of the encoders that are compared in some worlds, three seeds."""
    cells = []
    for seed in SEEDS:
        flows = [flow(of, variant, seed) for of in worlds for variant in COMPARED[of.world]]
        cells += [*flows, *map(distilled, flows)]
    return cells


def flow(world: Cell, variant: Variant, seed: int) -> Cell:
    """A flow, with as many steps as its encoder gets."""
    more = RATIO[world.world] if variant.name in ("linear", "wide") else 1.0
    return replace(
        world, name=f"{world.world}-{variant.name}-{seed}", variant=variant, seed=seed,
        steps=round(world.steps * more), writes=WRITES[world.world]["flow"],
        temperatures=TEMPERATURES, reach=reach(world.world, variant),
    )  # fmt: skip


def distilled(of: Cell) -> Cell:
    """The map of a flow."""
    return replace(
        of, name=of.name + "-map", kind="map", steps=round(of.steps * MAP_SHARE), lr=of.lr / 2,
        teacher=of.name, writes=WRITES[of.world]["map"], curve=3,
        temperatures=(TAUGHT.get(f"{of.world} {of.variant.name}", 1.0),),
    )  # fmt: skip


def ablations() -> list[Cell]:
    """Flows of the text, seed 0, shorter: one thing changed at a time."""
    changed = {
        "as it is": (BAYES, {}),
        "no evidence in the head": (POSTERIOR, {}),
        "no neighbours": (BAYES, {"reach": 0}),
        "neither": (POSTERIOR, {"reach": 0}),
        "uniform prior": (replace(BAYES, prior=False), {}),
        "mean alone": (replace(BAYES, views="mean"), {}),
        "deviation alone": (replace(BAYES, views="deviation"), {}),
        "no floor": (replace(BAYES, floor=0.0), {}),
        "table 3 times as large": (replace(BAYES, scale=3.0), {}),
        "clock of 1,056 words": (BAYES, {"clock_words": 1056}),
        "linear": (LINEAR, {}),
        "linear, with neighbours": (LINEAR, {"reach": 2}),
        "linear, 4 times as wide": (Variant("wide", gain=LINEAR.gain), {}),
    }
    short = replace(TEXT, steps=400)
    return [
        replace(flow(short, variant, 0), name=f"ablation: {name}", writes=(), curve=3, **other)
        for name, (variant, other) in changed.items()
    ]


def tuning() -> list[Cell]:
    """Learning rates of both, and how fast the linear table moves and how large it starts."""
    tried = [("bayes", lr, 1.0, 1.0) for lr in (1e-3, 3e-3)]
    tried += [("linear", 1e-3, 10.0, 1.0), ("linear", 3e-3, 10.0, 0.1)]
    tried += [("linear", 3e-3, gain, 1.0) for gain in (1.0, 3.0, 10.0, 30.0)]
    cells = []
    for encoder, lr, gain, scale in tried:
        base = BAYES if encoder == "bayes" else LINEAR
        variant = replace(base, gain=gain, scale=scale)
        cell = flow(replace(TEXT, steps=400, lr=lr), variant, 0)
        name = f"tuning: {encoder}, lr {lr:g}, gain {gain:g}, scale {scale:g}"
        cells.append(replace(cell, name=name, writes=(), curve=2))
    return cells


PARTS = {f.__name__: f for f in (study, small, vocabularies, ablations, tuning)}
