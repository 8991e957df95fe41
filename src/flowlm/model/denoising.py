"""Probabilities that a flow or a flow map gives to the clean tokens of any noisy point."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.errors import Refusal
from flowlm.methods.method import Method
from flowlm.model.arguments import clock_time, noisy_point
from flowlm.nn.dit import DiT


@torch.no_grad()
def denoised(
    method: Method, network: DiT, length: int, x: Float[Tensor, "b l v"], s: Tensor,
    t: Tensor | None, at_once: int,
) -> Float[Tensor, "b l v"]:  # fmt: skip
    """See `LanguageModel.denoise`; `at_once` texts are read together."""
    space, two = method.space(network), method.times == 2
    if space is None:
        raise Refusal("This model reads tokens, not noisy points: denoise() needs a flow.")
    if t is not None and not two:
        raise Refusal("This model is a flow: it reads one time, so leave t out.")
    x = noisy_point(x, length, network.vocab)
    taus = [clock_time("s", s, x)]
    if two:
        taus.append(taus[0] if t is None else clock_time("t", t, x))
        if bool((taus[1] < taus[0]).any()):
            raise Refusal("A flow map leads from s on to t, and here t is before s: swap them.")
    device, table = network.head.weight.device, network.encoder.table
    taus = [tau.to(device) for tau in taus]
    answers, denoiser = [], method.denoiser(network)
    for first in range(0, len(x), at_once):
        part = slice(first, first + at_once)
        point = space.from_one_hot(x[part].to(device, table.dtype))
        prediction = denoiser.two_time(point, taus[0][part], taus[-1][part])
        answers.append(prediction.log_probs().exp())
    return torch.cat(answers)
