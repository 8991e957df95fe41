"""Likelihood bounds on the demo's language: of its exact denoiser and of the shipped map.

    python -m benchmarks.bounds

Nats per word of sentences of the language, whose entropy is known: the bound of the stochastic
sampler in the limit of many steps, and that of the bridge in K steps.
"""

from __future__ import annotations

import torch

import flowlm
from benchmarks.provenance import write_result
from flowlm import core
from flowlm.core import Batch, Dense, OneHot, Streams
from flowlm.data.language import demo_language
from flowlm.evaluate.likelihood import Estimate, mean_nll
from flowlm.methods.bound import likelihood_bound
from flowlm.sampling import Bridge, Denoiser

TEXTS, DRAWS, STEPS = 400, 32, (1, 2, 4, 8, 16, 64)


def main() -> None:
    """Print a table and write benchmarks/results/bounds.json."""
    language, _ = demo_language()
    tokens = language.sample(Streams.of(11, 1, count=TEXTS))
    texts = Batch(tokens, torch.ones(tokens.shape))
    clock = core.Decoding(language.vocab)

    def exact(x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> Dense:
        return language.denoiser(x, clock.t(s.double()))

    model = flowlm.load("demo", "cpu")
    denoisers = {
        "exact denoiser": Denoiser(exact, OneHot(language.vocab), clock),
        "shipped map": model.experiment.method.denoiser(model.network),
    }
    print(f"entropy of the language: {language.entropy:.4f} nats a word; {TEXTS} texts")
    print("| | many steps | " + " | ".join(f"K = {k}" for k in STEPS) + " |")
    print("|---|" + "---:|" * (1 + len(STEPS)))
    told: dict[str, list[Estimate | None]] = {}
    for name, denoiser in denoisers.items():
        found = [
            mean_nll(lambda b, rng, d=denoiser: likelihood_bound(d, b.tokens, rng, DRAWS), texts)
        ]
        for steps in STEPS:

            def nll(batch: Batch, rng: Streams, d=denoiser, k=steps) -> torch.Tensor | None:
                return Bridge().nll(d, batch.tokens, k, rng)

            found.append(mean_nll(nll, texts))
        told[name] = found
        cells = [f"{e.mean:.3f} ± {e.error:.3f}" for e in found if e is not None]
        print(f"| {name} | " + " | ".join(cells) + " |")
    write_result("bounds", {"entropy": language.entropy, "steps": STEPS, "found": told})


if __name__ == "__main__":
    main()
