"""Operations on one tile of logits, and the loop over tiles.

As in attention computed blockwise (Milakov & Gimelshein 2018, the online softmax; Dao et al. 2022,
FlashAttention), a row's maximum and normaliser are kept up to date while tiles of the vocabulary
go by. A tile is square, because then least is read and accumulated per logit, and small enough to
stay in a cache.

Matrix products run in the precision of the moment (autocast); exponentials, normalisers and sums
are float32, or float64 where the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.chunked.points import LazyPoint

Tile = Float[Tensor, "n v"]
Row = Float[Tensor, " n"]
"""One number per token."""

Bias = Float[Tensor, " v"]


@dataclass(frozen=True)
class Tiling:
    """How logits are made, tile by tile."""

    products: torch.dtype
    """Of the matrix products."""
    cap: float | None
    """Soft cap, or none."""
    side: int
    """Rows and columns of a tile."""
    fused: bool
    """Whether the work on a tile between its matrix products is compiled into one kernel."""
    x: LazyPoint | None
    """Evidence is beta times this point."""

    def body(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """One of the functions on a tile below, compiled if wanted."""
        return _compiled(plain) if self.fused else plain

    def strips(self, count: int) -> Iterator[slice]:
        """Rows, or columns, side by side."""
        for start in range(0, count, self.side):
            yield slice(start, min(start + self.side, count))


def tile_side(kind: str) -> int:
    """Rows and columns of a tile of logits on a kind of device."""
    return 1024 if kind == "cpu" else 4096


@cache
def _compiled(plain: Callable[..., Any]) -> Callable[..., Any]:
    # dynamic: the last strip of rows or columns is smaller than the others.
    return torch.compile(plain, fullgraph=True, dynamic=True)


@dataclass(frozen=True, eq=False)
class Logits:
    """cap tanh((y W^T + c) / cap) of n tokens, never all at once.

    Without a cap y W^T + c, and then evidence may be added: beta times the rows of a point.
    """

    y: Float[Tensor, "n d"]
    weight: Float[Tensor, "v d"]
    bias: Bias
    beta: Row | None
    tiling: Tiling

    @staticmethod
    def of(y: Tensor, weight: Tensor, bias: Tensor, beta: Row | None, tiling: Tiling) -> Logits:
        """With y and W in the dtype of the matrix products."""
        assert tiling.cap is None or tiling.x is None, "evidence has no bound"
        return Logits(y.to(tiling.products), weight.to(tiling.products), bias, beta, tiling)

    @property
    def sums(self) -> torch.dtype:
        """The dtype of everything that is not a matrix product."""
        return torch.promote_types(self.y.dtype, torch.float32)

    def rows(self) -> Iterator[slice]:
        """Strips of tokens; evidence is written for one of them at a time."""
        x = self.tiling.x
        return self.tiling.strips(len(self.y)) if x is None else x.strips()

    def columns(self) -> Iterator[slice]:
        """Strips of the vocabulary."""
        return self.tiling.strips(len(self.weight))

    def strip(self, rows: slice) -> LogitStrip:
        """A strip of tokens, whose tiles can be made."""
        if self.tiling.x is None or self.beta is None:
            return LogitStrip(self.y[rows], self.weight, None, None)
        x = self.tiling.x.write_strip(rows)
        return LogitStrip(self.y[rows], self.weight, self.beta[rows, None], x)

    def bias_of(self, columns: slice) -> Bias:
        """The bias of some columns."""
        return contiguous_slice(self.bias, columns)

    def per_token(self, rows: slice, value: float = 0.0) -> Row:
        """A number for every token of a strip."""
        return self.y.new_full((rows.stop - rows.start,), value, dtype=self.sums)


@dataclass(frozen=True, eq=False)
class LogitStrip:
    """Logits of some tokens, before bias and cap."""

    y: Float[Tensor, "n d"]
    weight: Float[Tensor, "v d"]
    beta: Float[Tensor, "n 1"] | None
    x: Float[Tensor, "n v"] | None

    def products(self, columns: slice) -> Tile:
        """y W^T there, with the evidence in at least float32."""
        if self.x is None or self.beta is None:
            return self.y @ self.weight[columns].mT
        if self.y.shape[1] == 0:  # rows alone, without a context
            return self.beta * self.x[:, columns]
        made = self.y @ self.weight[columns].mT
        return torch.addcmul(made.to(self.beta.dtype), self.beta, self.x[:, columns])


def contiguous_slice(x: Float[Tensor, " k"], strip: slice) -> Float[Tensor, " s"]:
    """A strip of numbers, copied: the offset of a view would enter compiled code as a size."""
    return x[strip].clone()


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, the sum in the dtype of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


def capped(products: Float[Tensor, "*n v"], bias: Bias, cap: float | None) -> Float[Tensor, "*n v"]:
    """The logits, at least float32."""
    logits = products.to(torch.promote_types(products.dtype, torch.float32)) + bias
    return logits if cap is None else cap * torch.tanh(logits / cap)


def online_softmax(logits: Tile, top: Row, total: Row) -> tuple[Tile, Row, Row, Row]:
    """Take a tile into the running maximum `top` and normaliser `total` of its rows.

    Returns exp(logits - maximum), the new maximum and normaliser, and the factor for whatever was
    summed under the old maximum.
    """
    higher = torch.maximum(top, logits.amax(-1))
    mass = torch.exp(logits - higher[:, None])
    rescale = torch.exp(top - higher)
    return mass, higher, total * rescale + mass.sum(-1), rescale


def online_softmax_mass(
    products: Tile, bias: Bias, cap: float | None, top: Row, total: Row
) -> tuple[Tile, Row, Row, Row]:
    """`online_softmax`, with the masses in the dtype of matrix products."""
    mass, top, total, rescale = online_softmax(capped(products, bias, cap), top, total)
    return mass.to(products.dtype), top, total, rescale


def online_softmax_and_pick(
    products: Tile,
    bias: Bias,
    cap: float | None,
    top: Row,
    total: Row,
    column: Int[Tensor, " n"],
    picked: Row,
) -> tuple[Row, Row, Row]:
    """`online_softmax`, and each row's logit at `column`, if that is in this tile."""
    logits = capped(products, bias, cap)
    _, top, total, _ = online_softmax(logits, top, total)
    here = (column >= 0) & (column < logits.shape[1])
    at = logits.gather(-1, column.clamp(0, logits.shape[1] - 1)[:, None]).squeeze(-1)
    return top, total, torch.where(here, at, picked)


def online_softmax_and_average(
    products: Tile, bias: Bias, cap: float | None, top: Row, total: Row, averaged: Row, values: Tile
) -> tuple[Row, Row, Row]:
    """`online_softmax`, and the sum of `values` under the masses."""
    mass, top, total, rescale = online_softmax(capped(products, bias, cap), top, total)
    return top, total, averaged * rescale + (mass * values).sum(-1)


def probability(products: Tile, bias: Bias, cap: float | None, log_total: Row) -> Tile:
    """exp(logits - log normaliser)."""
    return torch.exp(capped(products, bias, cap) - log_total[:, None])


def shares(products: Tile, bias: Bias, cap: float | None, log_total: Row, share: Row) -> Tile:
    """share * probability."""
    return share[:, None] * probability(products, bias, cap, log_total)


def through_cap(
    slope: Float[Tensor, "*n v"], logits: Float[Tensor, "*n v"], cap: float | None
) -> Float[Tensor, "*n v"]:
    """From d / d logits to d / d (y W^T + c): the cap's own slope is 1 - (logit / cap)^2."""
    return slope if cap is None else slope * (1 - (logits / cap).square())


def likelihood_slope(products: Tile, bias: Bias, cap: float | None, log_total: Row) -> Tile:
    """Of the log normaliser: p, through the cap."""
    logits = capped(products, bias, cap)
    return through_cap(torch.exp(logits - log_total[:, None]), logits, cap).to(products.dtype)


def entropy_slope(
    wanted: Tile, products: Tile, bias: Bias, cap: float | None, log_total: Row
) -> Tile:
    """p - wanted, through the cap."""
    logits = capped(products, bias, cap)
    return through_cap(torch.exp(logits - log_total[:, None]) - wanted, logits, cap).to(
        products.dtype
    )


def expectation_slope(
    products: Tile, bias: Bias, cap: float | None, log_total: Row, pull: Tile, level: Row
) -> tuple[Tile, Tile]:
    """p, and p (pull - level) through the cap, where level is the mean of pull under p."""
    logits = capped(products, bias, cap)
    p = torch.exp(logits - log_total[:, None])
    slope = through_cap(p * (pull - level[:, None]), logits, cap)
    return p.to(products.dtype), slope.to(products.dtype)
