"""Texts of an autoregressive model, exactly, in fewer of its passes: a map drafts, it verifies."""

from __future__ import annotations

import torch

from flowlm.chunked import gumbel_noise
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Tokens
from flowlm.errors import Refusal
from flowlm.model.amounts import amounts
from flowlm.model.arguments import prompt_ids
from flowlm.model.batch_size import BUDGET, max_batch_size
from flowlm.model.language_model import LanguageModel
from flowlm.model.prompts import require_read
from flowlm.sampling.draft import Draft
from flowlm.sampling.jacobi import Jacobi, Verified, verify
from flowlm.sampling.sampler import with_prompt


@torch.no_grad()
def drafted(
    drafter: LanguageModel,
    teacher: LanguageModel,
    n: int,
    seed: int = 0,
    prompt: Tokens | None = None,
    temperature: float = 1.0,
    memory: int = BUDGET,
) -> Verified:
    """`n` texts of the teacher, each with the passes of the teacher that it took.

    They are those of `teacher.sample(n, length, seed, prompt, sampler=Jacobi(temperature))`: of the
    drafter, a Gumbel map, depends only how many passes they take. It is evaluated once a text, does
    not read the prompt, which is tokens at the beginning of the texts, and has learnt temperature
    1. Any teacher of its vocabulary and length will do, and the map's own agrees with it most.
    """
    jacobi = Jacobi(temperature)
    drafter.experiment.method.require_sampler(Draft())
    teacher.experiment.method.require_sampler(jacobi)
    _require_alike(drafter, teacher)
    n, _, seed, _ = amounts(n, 1, seed)
    length, vocab, device = teacher.length, teacher.network.vocab, teacher.device
    given = torch.full((n, length), FREE)
    if prompt is not None:
        given = prompt_ids(prompt, n, length, vocab)
        require_read(teacher.experiment.method, given)
    map_of = drafter.experiment.method.denoiser(drafter.network)
    next_token = teacher.experiment.method.denoiser(teacher.network)
    size = min(
        max_batch_size(Draft(), drafter.network, length, memory),
        max_batch_size(jacobi, teacher.network, length, memory),
    )
    found = []
    for first in range(0, n, size):
        part = given[first : first + size].to(device)
        rng = Streams.of(seed, count=len(part), first=first, device=device)
        noise = gumbel_noise(rng, length, vocab)
        draft = with_prompt(map_of.predict(noise).argmax(), part)
        found.append(verify(next_token, draft, noise, part, temperature))
    return Verified(
        torch.cat([part.tokens for part in found]), torch.cat([part.passes for part in found])
    )


def _require_alike(drafter: LanguageModel, teacher: LanguageModel) -> None:
    own, theirs = (
        {"vocabulary": of.network.vocab, "length": of.length, "device": of.device}
        for of in (drafter, teacher)
    )
    for name, value in own.items():
        if value != theirs[name]:
            raise Refusal(
                f"The {name} of the map ({value}) is not that of the teacher ({theirs[name]}): "
                "give the map its own teacher, on its device."
            )
