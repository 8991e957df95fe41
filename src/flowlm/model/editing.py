"""Editing by the flow: variations of a text, the noise of a text, and texts between two."""

from __future__ import annotations

from collections import deque
from math import pi

import torch
from jaxtyping import Int
from torch import Tensor

from flowlm.checks import whole
from flowlm.core.flow import velocity
from flowlm.core.rng import Streams
from flowlm.core.types import Point, Tokens
from flowlm.errors import Refusal
from flowlm.model.amounts import TEXTS, amounts
from flowlm.model.arguments import prompt_ids
from flowlm.model.language_model import LanguageModel
from flowlm.sampling.jump import Jumps
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.refine import Refine
from flowlm.sampling.sampler import Sampler

Editable = str | Int[Tensor, "n l"]
"""A text, or texts as tokens."""

INVERTED_FROM = 0.9
"""Clock time from which a text is followed back: at 1 it has no one noise."""


@torch.no_grad()
def vary(
    model: LanguageModel,
    text: Editable,
    strength: float,
    n: int = 1,
    steps: int = 8,
    seed: int = 0,
    sampler: Sampler | None = None,
) -> Tokens:
    """`n` texts (n, l) like a text, the less so the larger the strength in [0, 1].

    The text is noised to clock time tau = 1 - strength, which is about the share of its tokens that
    can still be read, and written on from there in `steps` steps (SDEdit, Meng et al. 2022). At 0
    it is the text itself, and at 1 nothing is left of it. Variation i depends on (seed, i) alone.
    """
    n, steps, seed, _ = amounts(n, steps, seed)
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise Refusal("The strength of a variation must be a number from 0 to 1.")
    if not 0 <= strength <= 1:
        raise Refusal(f"The strength of a variation must lie between 0 and 1, not {strength}.")
    denoiser, way = _denoiser(model), _way(model, sampler)
    tokens = _one(encoded(model, text)).expand(n, -1).to(model.device)
    if strength == 0:
        return tokens.clone()
    rng, start = Streams.of(seed, count=n, device=model.device), 1 - float(strength)
    x = denoiser.noisy(tokens, torch.full((n, 1), start, device=model.device), rng)
    return _written(way, denoiser, x, steps, rng, start)


@torch.no_grad()
def noise_of(
    model: LanguageModel,
    text: Editable,
    steps: int = 32,
    seed: int = 0,
    start: float = INVERTED_FROM,
) -> Point:
    """A noise x_0 from which the flow leads to a text: the flow followed back by Heun's method.

    Every noise of a whole region leads to the same text. So the text is noised to the clock time
    `start` < 1 first, with the noise of text 0 of the seed, and it is that point which is followed,
    by 2 * `steps` evaluations of D_t. Of `text` (n, l), noise for each.
    """
    _, steps, seed, _ = amounts(1, steps, seed)
    if not isinstance(start, int | float) or not 0 < start < 1:
        raise Refusal(f"A text is followed back from a clock time between 0 and 1, not {start}.")
    denoiser, tokens = _denoiser(model), encoded(model, text)
    rng = Streams.of(seed, count=len(tokens), device=model.device)
    grid = torch.linspace(float(start), 0, steps + 1, device=model.device)
    x = denoiser.noisy(tokens.to(model.device), grid[0].expand(len(tokens), 1), rng)
    for i in range(steps):  # written out: `Heun` moves by jumps, which only lead towards text
        now, then = (tau.expand(len(tokens), 1) for tau in grid[i : i + 2])
        t, t_next = denoiser.clock.t(now), denoiser.clock.t(then)
        slope = velocity(denoiser.space.mean(denoiser.at(x, now)), x, t)
        ahead = x + (t_next - t)[..., None] * slope
        further = velocity(denoiser.space.mean(denoiser.at(ahead, then)), ahead, t_next)
        x = denoiser.space.compress(x + (t_next - t)[..., None] / 2 * (slope + further))
    return x


@torch.no_grad()
def write_from(
    model: LanguageModel,
    noise: Point,
    steps: int = 1,
    seed: int = 0,
    sampler: Sampler | None = None,
) -> Tokens:
    """The texts (n, l) of given noise x_0; by default without new noise on the way."""
    _, steps, seed, _ = amounts(1, steps, seed)
    way = _way(model, Jumps(gamma=0.0) if sampler is None else sampler)
    rng = Streams.of(seed, count=len(noise), device=model.device)
    return _written(way, _denoiser(model), noise, steps, rng, 0.0)


@torch.no_grad()
def between(
    model: LanguageModel,
    first: Editable | int,
    second: Editable | int,
    count: int = 7,
    steps: int = 1,
    seed: int = 0,
    sampler: Sampler | None = None,
) -> Tokens:
    """`count` texts (count, l) on the way from one to another.

    Those of the noises cos(th) a + sin(th) b with th from 0 to pi/2, which have the length that
    noise has. A number is that of a text of the seed, whose noise is known; of a text or tokens it
    is `noise_of` them, which is near, so that the ends may differ in some words.
    """
    count = whole("The number of texts between two", count, 2, 2**16)
    _, steps, seed, _ = amounts(1, steps, seed)
    way = Jumps(gamma=0.0) if sampler is None else sampler
    a, b = (_noise(model, end, seed) for end in (first, second))
    angles = torch.linspace(0, pi / 2, count, dtype=torch.float64, device=model.device)
    turns = ((th.cos().float(), th.sin().float()) for th in angles.view(-1, 1, 1, 1))
    texts = [write_from(model, a * cos + b * sin, steps, seed, way) for cos, sin in turns]
    return torch.cat(texts)


def encoded(model: LanguageModel, text: Editable) -> Tokens:
    """A text, or tokens (n, l), as ids (n, l) that the model can read."""
    if not isinstance(text, str):
        rows = len(text) if isinstance(text, Tensor) and text.ndim else 1
        ids = prompt_ids(text, rows, model.length, model.network.vocab)
        if bool((ids < 0).any()):
            raise Refusal("A text to edit has all of its tokens: leave no -1 in it.")
        return ids
    ids = model.encode(text)
    stop = None if model.tokenizer is None else model.tokenizer.stop
    if stop is not None and ids.shape[1] < model.length:
        behind = ids.new_full((1, model.length - ids.shape[1]), stop)
        return torch.cat([ids, behind], 1)
    if ids.shape[1] != model.length:
        raise Refusal(
            f"The text has {ids.shape[1]} tokens, and texts of this model have {model.length}: "
            "give one of that length."
        )
    return ids


def _noise(model: LanguageModel, end: Editable | int, seed: int) -> Point:
    if isinstance(end, int):
        number = whole("The number of a text", end, 0, TEXTS - 1)
        rng = Streams.of(seed, count=1, first=number, device=model.device)
        return _denoiser(model).space.noise(rng, model.length)
    return noise_of(model, _one(encoded(model, end)), seed=seed)


def _one(tokens: Tokens) -> Tokens:
    if len(tokens) != 1:
        raise Refusal(f"One text is edited at a time, and these are {len(tokens)}.")
    return tokens


def _way(model: LanguageModel, sampler: Sampler | None) -> PointSampler:
    way = model.experiment.sampler if sampler is None else sampler
    if not isinstance(way, PointSampler) or isinstance(way, Refine):
        raise Refusal(f"{type(way).__name__} cannot go on from a point: take another sampler.")
    model.experiment.method.require_sampler(way)
    return way


def _denoiser(model: LanguageModel) -> Denoiser:
    method = model.experiment.method
    if method.samplers is not PointSampler:
        raise Refusal(f"{method.label} has no flow to edit by: a flow or a flow map has.")
    return method.denoiser(model.network)


def _written(
    way: PointSampler,
    denoiser: Denoiser,
    x: Point,
    steps: int,
    rng: Streams,
    start: float,
) -> Tokens:
    grid = torch.linspace(start, 1, steps + 1, device=x.device)
    (last,) = deque(way.walk(denoiser, x, grid, rng), maxlen=1)
    return last.tokens()
