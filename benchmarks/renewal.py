"""How much noise to renew between steps, with an exact denoiser: what full re-noising costs.

    python -m benchmarks.renewal            about 3 minutes on one core

A language of three words out of five whose sentences can be listed, TEXTS texts a cell: total
variation distance to it, and the entropy of what is written. The result says how
far as many texts are that are drawn exactly.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

from benchmarks.cells import table
from benchmarks.provenance import write_result
from flowlm import core
from flowlm.core.oracle import Listed
from flowlm.sampling import Bridge, Denoiser, Jumps, PointSampler

VOCAB, LENGTH, TEXTS = 5, 3, 3000
STEPS = (2, 8, 32, 128)
WAYS: dict[str, PointSampler] = {
    "gamma 0": Jumps(gamma=0.0),
    "Jumps()": Jumps(),
    "gamma 1": Jumps(gamma=1.0),
    "Bridge()": Bridge(),
}


def main() -> None:
    """Measure, print the table, write benchmarks/results/renewal.json."""
    torch.set_num_threads(1)
    law = language()
    clock = core.Decoding(VOCAB)
    denoiser = Denoiser(lambda x, s, t: law.denoiser(x, clock.t(s)), core.OneHot(VOCAB), clock)
    wanted = shares(law.sentences)
    prompt = torch.full((TEXTS, LENGTH), core.FREE)
    rows = []
    for name, sampler in WAYS.items():
        for steps in STEPS:
            rng = core.Streams.of(1, count=TEXTS)
            *_, last = sampler.frames(denoiser, prompt, steps, rng)
            rows.append({"sampler": name, "steps": steps} | told(last.tokens(), wanted))
            print(rows[-1], flush=True)
    exact = told(law.sample(core.Streams.of(2, count=TEXTS)), wanted)
    result = {"entropy": entropy(wanted), "texts": TEXTS, "drawn exactly": exact, "rows": rows}
    write_result("renewal", {"command": "python -m benchmarks.renewal", **result})
    cells = {(r["sampler"], r["steps"]): f"{r['distance']:.3f} / {r['entropy']:.2f}" for r in rows}
    lines = [[str(steps), *(cells[name, steps] for name in WAYS)] for steps in STEPS]
    print(table(["steps", *WAYS], lines), exact, entropy(wanted))


def language() -> Listed:
    """All 125 sentences, some of them far likelier than others: as often in the list."""
    every = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    weight = torch.rand(len(every), generator=torch.Generator().manual_seed(3)) ** 6
    return Listed(VOCAB, LENGTH, every.repeat_interleave((60 * weight).round().long(), 0))


def shares(tokens: core.Tokens) -> torch.Tensor:
    """The share of each of the v^l sentences among some."""
    number = (tokens * VOCAB ** torch.arange(LENGTH)).sum(1)
    return number.bincount(minlength=VOCAB**LENGTH).double() / len(tokens)


def entropy(p: torch.Tensor) -> float:
    """Nats."""
    return float(torch.special.entr(p).sum())


def told(tokens: core.Tokens, wanted: torch.Tensor) -> dict[str, Any]:
    """Distance to the language, and entropy."""
    found = shares(tokens)
    return {"distance": float((found - wanted).abs().sum() / 2), "entropy": entropy(found)}


if __name__ == "__main__":
    main()
