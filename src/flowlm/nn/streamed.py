"""Cross-entropies and means under softmax(cap(y W^T + c)) that never hold its rows.

Forward passes keep one number or one vector per token; backward passes make every tile again. The
gradients are exact: nothing is sampled or cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowlm.nn.tiles import (
    Logits,
    Row,
    Tile,
    Tiling,
    absorb,
    absorb_and_average,
    absorb_and_pick,
    absorb_mass,
    add_product,
    capped,
    entropy_slope,
    expectation_slope,
    likelihood_slope,
    piece,
    shares,
)

Slope = Callable[[slice, slice], Tile]
"""(rows, columns) -> d value / d (y W^T + c) there, each row for its own value."""

Part = tuple[Row, Logits]
"""A share of every token's mixture, and what it is a share of."""

Gradients = tuple[Tensor | None, ...]


class Likelihood(torch.autograd.Function):
    """-log p(token)."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, tiling: Tiling
    ) -> Row:
        """Nats, (n,)."""
        logits = Logits.of(y, weight, bias, tiling)
        step = tiling.body(absorb_and_pick)
        log_totals, picks = [], []
        for i in logits.rows():
            top, total = logits.per_token(i, -torch.inf), logits.per_token(i)
            pick = logits.per_token(i)
            for j in logits.columns():
                place = tokens[i] - j.start
                top, total, pick = step(
                    logits.products(i, j), piece(bias, j), tiling.cap, top, total, place, pick
                )
            log_totals.append(top + total.log())
            picks.append(pick)
        log_total, pick = torch.cat(log_totals), torch.cat(picks)
        ctx.tiling = tiling
        ctx.save_for_backward(y, weight, bias, tokens, log_total, pick)
        return log_total - pick

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Row) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p - onehot(token)."""
        y, weight, bias, tokens, log_total, pick = ctx.saved_tensors
        tiling = ctx.tiling
        logits = Logits.of(y, weight, bias, tiling)
        body = tiling.body(likelihood_slope)

        def slope(i: slice, j: slice) -> Tile:
            return body(logits.products(i, j), piece(bias, j), tiling.cap, piece(log_total, i))

        dy, dweight, dbias = _pull(logits, slope, g)
        # The one-hot part touches one word a token, so it stays outside the tiles.
        paid = -g if tiling.cap is None else -g * (1 - (pick / tiling.cap).square())
        dy += paid[:, None] * weight[tokens]
        dweight.index_add_(0, tokens, paid[:, None] * y)
        dbias.index_add_(0, tokens, paid)
        return dy.to(y.dtype), dweight.to(weight.dtype), dbias.to(bias.dtype), None, None


class CrossEntropy(torch.autograd.Function):
    """-sum_v q(v) log p(v), where q = sum_k share_k softmax(logits_k) is a fixed mixture."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, parts: Sequence[Part], tiling: Tiling
    ) -> Row:
        """Nats, (n,): the log normaliser of p less the mean of its logits under q."""
        logits = Logits.of(y, weight, bias, tiling)
        make, see, average = map(tiling.body, (capped, absorb, absorb_and_average))
        values, log_totals = [], []
        for i in logits.rows():
            lowest, nothing = logits.per_token(i, -torch.inf), logits.per_token(i)
            top, total = lowest, nothing
            # A clone, since compiled code would ask whether two of its arguments are one.
            kept = [(lowest, nothing, nothing.clone()) for _ in parts]
            for j in logits.columns():
                tile = make(logits.products(i, j), piece(bias, j), tiling.cap)
                _, top, total, _ = see(tile, top, total)
                kept = [
                    average(
                        part.products(i, j), piece(part.bias, j), part.tiling.cap, *so_far, tile
                    )
                    for (_, part), so_far in zip(parts, kept)
                ]
            log_totals.append([top + total.log(), *(t + n.log() for t, n, _ in kept)])
            mean = [share[i] * s / n for (share, _), (_, n, s) in zip(parts, kept)]
            values.append(reduce(torch.sub, mean, log_totals[-1][0]))
        ctx.parts, ctx.tiling = parts, tiling
        ctx.save_for_backward(y, weight, bias, *map(torch.cat, zip(*log_totals)))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Row) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p - q."""
        y, weight, bias, log_total, *parts_total = ctx.saved_tensors
        tiling = ctx.tiling
        logits = Logits.of(y, weight, bias, tiling)
        part_of, last = map(tiling.body, (shares, entropy_slope))

        def slope(i: slice, j: slice) -> Tile:
            wanted = [
                part_of(
                    part.products(i, j), piece(part.bias, j), part.tiling.cap, piece(total, i),
                    piece(share, i),
                )
                for (share, part), total in zip(ctx.parts, parts_total)
            ]  # fmt: skip
            return last(
                reduce(torch.add, wanted), logits.products(i, j), piece(bias, j), tiling.cap,
                piece(log_total, i),
            )  # fmt: skip

        dy, dweight, dbias = _pull(logits, slope, g)
        return dy.to(y.dtype), dweight.to(weight.dtype), dbias.to(bias.dtype), None, None


class Expectation(torch.autograd.Function):
    """softmax(logits) @ table."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, table: Tensor, tiling: Tiling
    ) -> Float[Tensor, "n e"]:
        """(n, e) for a table (v, e)."""
        logits, values = Logits.of(y, weight, bias, tiling), table.to(tiling.products)
        step = tiling.body(absorb_mass)
        mean = y.new_zeros(len(y), table.shape[1], dtype=logits.sums)
        log_totals = []
        for i in logits.rows():
            top, total = logits.per_token(i, -torch.inf), logits.per_token(i)
            for j in logits.columns():
                products = logits.products(i, j)
                mass, top, total, rescale = step(products, piece(bias, j), tiling.cap, top, total)
                mean[i] *= rescale[:, None]
                add_product(mean[i], mass, values[j])
            mean[i] /= total[:, None]
            log_totals.append(top + total.log())
        ctx.tiling = tiling
        ctx.save_for_backward(y, weight, bias, table, mean, torch.cat(log_totals))
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p (g table^T - g mean), and d/dtable = p^T g."""
        y, weight, bias, table, mean, log_total = ctx.saved_tensors
        tiling = ctx.tiling
        logits, values = Logits.of(y, weight, bias, tiling), table.to(tiling.products)
        pulled, level = g.to(tiling.products), (g * mean).sum(-1)
        dtable = torch.zeros_like(table, dtype=logits.sums)
        body = tiling.body(expectation_slope)

        def slope(i: slice, j: slice) -> Tile:
            pull = pulled[i] @ values[j].mT
            products = logits.products(i, j)
            p, tile = body(
                products, piece(bias, j), tiling.cap, piece(log_total, i), pull, piece(level, i)
            )
            add_product(dtable[j], p.mT, pulled[i])
            return tile

        dy, dweight, dbias = _pull(logits, slope, torch.ones_like(log_total))
        gradients = zip((dy, dweight, dbias, dtable), (y, weight, bias, table))
        return *(d.to(of.dtype) for d, of in gradients), None


def likeliest(logits: Logits) -> Int[Tensor, " n"]:
    """The token with the largest logit; the first of several."""
    answers = []
    for i in logits.rows():
        best, place = logits.per_token(i, -torch.inf), None
        for j in logits.columns():
            # The cap is increasing, but rounding may tie what it brings close: it stays in.
            top, at = capped(logits.products(i, j), piece(logits.bias, j), logits.tiling.cap).max(
                -1
            )
            place = at + j.start if place is None else torch.where(top > best, at + j.start, place)
            best = torch.maximum(best, top)
        answers.append(place)
    return torch.cat(answers)


def _pull(logits: Logits, slope: Slope, g: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum_i g_i value_i in y, weight and bias."""
    # Scaling y by g, and dy at the end, saves a pass over every tile.
    scaled = (g[:, None] * logits.y).to(logits.y.dtype)
    dy = torch.zeros_like(logits.y, dtype=logits.sums)
    dweight = torch.zeros_like(logits.weight, dtype=logits.sums)
    dbias = torch.zeros_like(logits.bias, dtype=logits.sums)
    for i in logits.rows():
        for j in logits.columns():
            tile = slope(i, j).to(logits.y.dtype)
            dbias[j] += g[i].to(tile.dtype) @ tile
            add_product(dy[i], tile, logits.weight[j])
            add_product(dweight[j], tile.mT, scaled[i])
    return dy.mul_(g[:, None]), dweight, dbias
