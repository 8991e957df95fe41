"""The steps that are compared: ours, the dense one, and masked diffusion, on one trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from flowlm import core, nn
from flowlm.core.distribution import Dense
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput
from flowlm.methods.masked import Masked

PAPER = nn.Size(dropout=0.0, attention_cap=None)
"""The published 12 blocks of width 768 and cap of the output. Not the cap of attention: its
explicit logits would hide what is compared here."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Precision = Literal["float32", "bfloat16"]

LossOf = Callable[[nn.DiT, core.Batch, core.Streams], core.Loss]


@dataclass(frozen=True)
class Case:
    """One training step: which, on what, how large."""

    rival: str
    vocab: int
    batch: int
    length: int
    size: nn.Size = field(default=PAPER)
    precision: Precision = "float32"
    recompute: bool = False
    compile: bool = False
    keep: bool = True
    """Whether the C library keeps freed memory, as `flowlm train` has it do on a CPU."""


def dense_loss(model: nn.DiT, batch: core.Batch, rng: core.Streams) -> core.Loss:
    """A flow's loss the straightforward way: one-hot text, noise, state, logits, all (b, l, v)."""
    clock = core.Decoding(model.vocab)
    tau = clock.draw(rng)
    t = clock.t(tau)[..., None]
    x1 = torch.nn.functional.one_hot(batch.tokens, model.vocab).float()
    x0 = torch.randn_like(x1)
    x = (1 - t) * x0 + t * x1
    return core.Loss(Dense(model(x, tau).log_probs()).nll(batch.tokens), batch.weight)


def rival(case: Case) -> tuple[nn.DiT, LossOf]:
    """A network and its loss. "map" distils a flow of the same size, with the same table."""
    method, loss, teacher = Flow(input=LinearInput()), dense_loss, None
    with torch.device(DEVICE):
        match case.rival:
            case "flow":
                method = Flow()
                loss = method.loss
            case "posterior":
                method = Flow(input=PosteriorInput())
                loss = method.loss
            case "bayes":
                method = Flow(input=BayesInput())
                loss = method.loss
            case "masked":
                method = Masked()
                loss = method.loss
            case "map":
                teacher = Flow().network(case.size, case.vocab, case.length).requires_grad_(False)
                method = FlowMap(teacher="a flow")
                loss = partial(method.loss, teacher=teacher)
            case "dense":
                pass
            case other:
                raise ValueError(other)
        model = method.network(case.size, case.vocab, case.length, teacher)
    model.recompute = case.recompute
    for part in (model, teacher):
        if case.compile and part is not None:
            nn.compile_parts(part)
    return model, loss


def texts(case: Case, batch: int | None = None) -> core.Batch:
    """Tokens without meaning: what a step costs does not depend on them."""
    count = batch or case.batch
    tokens = torch.arange(count * case.length, device=DEVICE).view(count, case.length) % case.vocab
    return core.Batch(tokens, torch.ones(count, case.length, device=DEVICE))
