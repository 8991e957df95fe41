"""Small languages worked out by listing every sentence, and flows by integrating finely."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flowlm import core, nn


def listed(language: core.Language) -> dict[tuple[int, ...], float]:
    """Every possible sentence with its probability: the weights of its paths, summed one by one."""
    arcs = [
        (int(a), int(w), int(b), float(c))
        for a, w, b, c in zip(language.source, language.token, language.target, language.chance)
    ]

    def weight(state: int, words: tuple[int, ...]) -> float:
        if not words:
            return float(language.final[state])
        return sum(c * weight(b, words[1:]) for a, w, b, c in arcs if a == state and w == words[0])

    every = {
        words: weight(0, words)
        for words in itertools.product(range(language.vocab), repeat=language.length)
    }
    total = sum(every.values())
    return {words: w / total for words, w in every.items() if w > 0}


def joint(language: core.Language) -> Tensor:
    """The probability of all v^l sentences, one axis a word."""
    table = torch.zeros([language.vocab] * language.length, dtype=torch.float64)
    for words, p in listed(language).items():
        table[words] = p
    return table


def counted(tokens: Tensor, vocab: int) -> Tensor:
    """How often each of the v^l sentences occurs, one axis a word."""
    counts = torch.zeros([vocab] * tokens.shape[1], dtype=torch.float64)
    for words in tokens.tolist():
        counts[tuple(words)] += 1
    return counts


def variation(p: Tensor, q: Tensor) -> float:
    """Total variation distance of two tables of probabilities."""
    return float((p - q).abs().sum() / 2)


def product_of_marginals(table: Tensor) -> Tensor:
    """The table with the same marginals and independent words."""
    axes = range(table.dim())
    out = torch.ones_like(table)
    for i in axes:
        margin = table.sum([j for j in axes if j != i])
        out = out * margin.view([-1 if j == i else 1 for j in axes])
    return out


def bayes(language: core.Language, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """E[x1 | x_t = x] from Gaussian densities, sentence by sentence, in the log domain.

    x (b, l, v); t (b, l), below 1.
    """
    known = listed(language)
    out = np.zeros(x.shape)
    for b in range(len(x)):
        scores = []
        for words, p in known.items():
            score = math.log(p)
            for i, word in enumerate(words):
                for w in range(language.vocab):
                    mean, sd = t[b, i] * (w == word), 1 - t[b, i]
                    score += -0.5 * ((x[b, i, w] - mean) / sd) ** 2 - math.log(sd)
            scores.append(score)
        shares = np.exp(np.array(scores) - max(scores))
        for words, share in zip(known, shares / shares.sum()):
            for i, word in enumerate(words):
                out[b, i, word] += share
    return out


def listed_denoiser(language: core.Language) -> Callable[[Tensor, Tensor], Tensor]:
    """E[x1 | x_t = x] of a few sentences: an average of them by their likelihoods, in float64.

    Sentence by sentence log N(x; t e, (1-t)^2) is t / (1-t)^2 <x, e> but for what all share.
    """
    known = listed(language)
    texts = torch.nn.functional.one_hot(torch.tensor(list(known)), language.vocab).double()
    prior = torch.tensor(list(known.values()), dtype=torch.float64).log()

    def denoised(x: Tensor, t: Tensor) -> Tensor:
        evidence = (t / (1 - t).square())[..., None] * x
        scores = prior + torch.einsum("blv,nlv->bn", evidence, texts)
        return torch.einsum("bn,nlv->blv", scores.softmax(-1), texts)

    return denoised


def travelled(language: core.Language, x: Tensor, s: Tensor, t: Tensor, steps: int) -> Tensor:
    """X_{s,t}(x) of the exact flow for t < 1, by classical Runge-Kutta of order 4.

    In the time r = -log(1 - t) the flow is dx/dr = D(x) - x. s and t are (b, 1).
    """
    start, stop = -torch.log1p(-s.double()), -torch.log1p(-t.double())
    step = (stop - start) / steps
    h = step[..., None]
    denoised = listed_denoiser(language)

    def slope(y: Tensor, r: Tensor) -> Tensor:
        return denoised(y, -torch.expm1(-r)) - y

    x = x.double()
    for k in range(steps):
        r = start + k * step
        k1 = slope(x, r)
        k2 = slope(x + h / 2 * k1, r + step / 2)
        k3 = slope(x + h / 2 * k2, r + step / 2)
        k4 = slope(x + h * k3, r + step)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def two_time(language: core.Language, x: Tensor, s: Tensor, t: Tensor, steps: int) -> Tensor:
    """delta_{s,t}(x) of the exact flow: the formula of the jump, solved for delta. s < t < 1."""
    return inverted(x, travelled(language, x, s, t, steps), s, t)


def inverted(x: Tensor, end: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The two-time denoiser of a jump from x at s to `end` at t."""
    s, t = s.double()[..., None], t.double()[..., None]
    return ((1 - s) * end - (1 - t) * x.double()) / (t - s)


class Answers(nn.DiT):
    """A network whose answers are given: it stands where a trained one would."""

    def __init__(self, vocab: int, answer: Callable[..., core.TokenDistribution]) -> None:
        size = nn.Size(blocks=1, width=2, heads=1, condition=1)
        super().__init__(size, nn.Linear(vocab, 2), vocab, length=1, times=0)
        self.answer = answer

    def forward(
        self, x: Tensor, *taus: Tensor, cache: object = None, rng: object = None
    ) -> core.TokenDistribution:
        return self.answer(x, *taus)
