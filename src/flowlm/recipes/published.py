"""The published trunk and schedule, and ours, for the recipes of the benchmark corpora.

Sources: arXiv 2602.16813, and the README and training scripts of its official code
(github.com/david3684/flm). They train a million steps of 512 texts, on eight H100 for OpenWebText.
"""

from __future__ import annotations

from dataclasses import replace

from flowlm.nn.size import Size
from flowlm.train.plan import Plan

SIZE = Size()
OURS = Size(reach=2, output_cap=None)
"""The same with what the bayes encoder goes with."""
PLAN = Plan(
    steps=1_000_000, batch=512, precision="bfloat16", compile=True, log_every=100,
    validate_every=5000, save_every=5000,
)  # fmt: skip

HALF = replace(PLAN, steps=500_000)
"""Duo's curriculum is the first half of its training (arXiv 2506.10892)."""
ROUND = replace(PLAN, steps=10_000, batch=128, lr=6e-5, warmup=500, ema=0.999)
"""A round of Duo's distillation, of which five are published; the first has times 1/512 apart."""
SCORES = replace(PLAN, steps=1_300_000)
"""SEDD is trained for longer than the others, otherwise by the same plan (arXiv 2310.16834)."""
ROUND_SDTT = replace(PLAN, steps=10_000, batch=128)
"""A round of SDTT, of which seven are published; the first takes steps of 1/1024 (arXiv
2410.21035)."""
MIXTURE = replace(ROUND, batch=16, lr=3e-5)
"""Di4C (arXiv 2410.08709), which is published with two texts a step. Its number of steps is not
known: this one is ours."""
