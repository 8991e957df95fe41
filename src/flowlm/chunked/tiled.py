"""The reductions that training and sampling ask most, by square tiles of logits.

They give what `strips.Strips` gives, faster: a tile stays in a cache, and the weight is read, and
its gradient summed, once per 1,024 tokens instead of once per strip (docs/performance.md). Forward
passes keep one number or one vector per token; backward passes make every tile again. The gradients
are exact: nothing is sampled or cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowlm.chunked.tiles import (
    Logits,
    LogitStrip,
    Row,
    Tile,
    Tiling,
    add_product,
    capped,
    contiguous_slice,
    entropy_slope,
    expectation_slope,
    likelihood_slope,
    online_softmax,
    online_softmax_and_average,
    online_softmax_and_pick,
    online_softmax_mass,
    probability,
    shares,
)

Slope = Callable[[slice, LogitStrip], Callable[[slice], Tile]]
"""rows, their strip -> columns -> d value / d (y W^T + c) there, each row for its own value."""

Part = tuple[Row, Logits]
"""A share of every token's mixture, and what it is a share of."""

Gradients = tuple[Tensor | None, ...]


class TiledNll(torch.autograd.Function):
    """-log p(token)."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        beta: Row | None,
        tiling: Tiling,
        tokens: Tensor,
    ) -> Row:
        """Nats, (n,)."""
        logits = Logits.of(y, weight, bias, beta, tiling)
        step = tiling.body(online_softmax_and_pick)
        log_totals, picks = [], []
        for i in logits.rows():
            top, total = logits.per_token(i, -torch.inf), logits.per_token(i)
            pick, strip = logits.per_token(i), logits.strip(i)
            for j in logits.columns():
                column, part = tokens[i] - j.start, logits.bias_of(j)
                top, total, pick = step(
                    strip.products(j), part, tiling.cap, top, total, column, pick
                )
            log_totals.append(top + total.log())
            picks.append(pick)
        log_total, pick = torch.cat(log_totals), torch.cat(picks)
        ctx.tiling = tiling
        ctx.save_for_backward(y, weight, bias, beta, tokens, log_total, pick)
        return log_total - pick

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Row) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p - onehot(token)."""
        y, weight, bias, beta, tokens, log_total, pick = ctx.saved_tensors
        tiling = ctx.tiling
        logits = Logits.of(y, weight, bias, beta, tiling)
        body, shown = tiling.body(likelihood_slope), []

        def slope(i: slice, strip: LogitStrip) -> Callable[[slice], Tile]:
            total = contiguous_slice(log_total, i)
            if strip.x is not None:
                shown.append(strip.x.gather(1, tokens[i, None]).squeeze(1))
            return lambda j: body(strip.products(j), logits.bias_of(j), tiling.cap, total)

        dy, dweight, dbias, dbeta = backward_tiles(logits, slope, g, ctx.needs_input_grad[3])
        # The one-hot part touches one column a row, so it stays outside the tiles.
        paid = -g if tiling.cap is None else -g * (1 - (pick / tiling.cap).square())
        dy += paid[:, None] * weight[tokens]
        dweight.index_add_(0, tokens, paid[:, None] * y)
        dbias.index_add_(0, tokens, paid)
        if dbeta is not None:
            dbeta += paid * torch.cat(shown)
        return *_like(ctx, dy, dweight, dbias, dbeta), None, None


class TiledCrossEntropy(torch.autograd.Function):
    """-sum_v q(v) log p(v), where q = sum_k share_k softmax(logits_k) is a fixed mixture."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        beta: Row | None,
        tiling: Tiling,
        parts: Sequence[Part],
    ) -> Row:
        """Nats, (n,): the log normaliser of p less the mean of its logits under q."""
        logits = Logits.of(y, weight, bias, beta, tiling)
        make, see, average = map(tiling.body, (capped, online_softmax, online_softmax_and_average))
        values, log_totals = [], []
        for i in logits.rows():
            lowest, nothing = logits.per_token(i, -torch.inf), logits.per_token(i)
            top, total = lowest, nothing
            # A clone, since compiled code would ask whether two of its arguments are one.
            kept = [(lowest, nothing, nothing.clone()) for _ in parts]
            strip, wanted = logits.strip(i), [part.strip(i) for _, part in parts]
            for j in logits.columns():
                tile = make(strip.products(j), logits.bias_of(j), tiling.cap)
                _, top, total, _ = see(tile, top, total)
                kept = [
                    average(theirs.products(j), part.bias_of(j), part.tiling.cap, *so_far, tile)
                    for (_, part), theirs, so_far in zip(parts, wanted, kept)
                ]
            log_totals.append([top + total.log(), *(t + n.log() for t, n, _ in kept)])
            mean = [share[i] * s / n for (share, _), (_, n, s) in zip(parts, kept)]
            values.append(reduce(torch.sub, mean, log_totals[-1][0]))
        ctx.parts, ctx.tiling = parts, tiling
        ctx.save_for_backward(y, weight, bias, beta, *map(torch.cat, zip(*log_totals)))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Row) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p - q."""
        y, weight, bias, beta, log_total, *parts_total = ctx.saved_tensors
        tiling = ctx.tiling
        logits = Logits.of(y, weight, bias, beta, tiling)
        part_of, last = map(tiling.body, (shares, entropy_slope))

        def slope(i: slice, strip: LogitStrip) -> Callable[[slice], Tile]:
            total = contiguous_slice(log_total, i)
            theirs = [
                (part.strip(i), part, contiguous_slice(log, i), contiguous_slice(share, i))
                for (share, part), log in zip(ctx.parts, parts_total)
            ]

            def tile(j: slice) -> Tile:
                wanted = [
                    part_of(of.products(j), part.bias_of(j), part.tiling.cap, log, share)
                    for of, part, log, share in theirs
                ]
                return last(
                    reduce(torch.add, wanted),
                    strip.products(j),
                    logits.bias_of(j),
                    tiling.cap,
                    total,
                )

            return tile

        pulled = backward_tiles(logits, slope, g, ctx.needs_input_grad[3])
        return *_like(ctx, *pulled), None, None


class TiledMean(torch.autograd.Function):
    """softmax(logits) @ table."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        beta: Row | None,
        tiling: Tiling,
        table: Tensor,
    ) -> Float[Tensor, "n e"]:
        """(n, e) for a table (v, e)."""
        logits = Logits.of(y, weight, bias, beta, tiling)
        values = table.to(tiling.products)
        step = tiling.body(online_softmax_mass)
        mean = y.new_zeros(len(y), table.shape[1], dtype=logits.sums)
        log_totals = []
        for i in logits.rows():
            top, total = logits.per_token(i, -torch.inf), logits.per_token(i)
            strip = logits.strip(i)
            for j in logits.columns():
                products = strip.products(j)
                mass, top, total, rescale = step(
                    products, logits.bias_of(j), tiling.cap, top, total
                )
                mean[i] *= rescale[:, None]
                add_product(mean[i], mass.to(values.dtype), values[j])
            mean[i] /= total[:, None]
            log_totals.append(top + total.log())
        ctx.tiling = tiling
        # A posterior of rows alone learns through its table alone, which needs no mean.
        kept = mean if any(ctx.needs_input_grad[:4]) else None
        ctx.save_for_backward(y, weight, bias, beta, table, kept, torch.cat(log_totals))
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dlogits = p (g table^T - g mean), and d/dtable = p^T g."""
        y, weight, bias, beta, table, mean, log_total = ctx.saved_tensors
        tiling = ctx.tiling
        logits = Logits.of(y, weight, bias, beta, tiling)
        values = table.to(tiling.products)
        pulled = g.to(tiling.products)
        dtable = torch.zeros_like(table, dtype=logits.sums)
        if mean is None:
            part_of = tiling.body(probability)
            for i in logits.rows():
                strip, total = logits.strip(i), contiguous_slice(log_total, i)
                for j in logits.columns():
                    p = part_of(strip.products(j), logits.bias_of(j), tiling.cap, total)
                    add_product(dtable[j], p.to(values.dtype).mT, pulled[i])
            return *(None,) * 5, dtable.to(table.dtype)
        body, level = tiling.body(expectation_slope), (g * mean).sum(-1)

        def slope(i: slice, strip: LogitStrip) -> Callable[[slice], Tile]:
            total, mean_pull = contiguous_slice(log_total, i), contiguous_slice(level, i)

            def tile(j: slice) -> Tile:
                pull = pulled[i] @ values[j].mT
                p, made = body(
                    strip.products(j), logits.bias_of(j), tiling.cap, total, pull, mean_pull
                )
                add_product(dtable[j], p.to(values.dtype).mT, pulled[i])
                return made

            return tile

        once = torch.ones_like(log_total)
        slopes = backward_tiles(logits, slope, once, ctx.needs_input_grad[3])
        return *_like(ctx, *slopes), None, dtable.to(table.dtype)


def argmax_tiles(logits: Logits) -> Int[Tensor, " n"]:
    """The token with the largest logit; the first of several."""
    answers = []
    for i in logits.rows():
        best, found, strip = logits.per_token(i, -torch.inf), None, logits.strip(i)
        for j in logits.columns():
            # The cap is increasing, but rounding may tie what it brings close: it stays in.
            top, at = capped(strip.products(j), logits.bias_of(j), logits.tiling.cap).max(-1)
            found = at + j.start if found is None else torch.where(top > best, at + j.start, found)
            best = torch.maximum(best, top)
        answers.append(found)
    return torch.cat(answers)


def backward_tiles(
    logits: Logits, slope: Slope, g: Row, wants_beta: bool
) -> tuple[Tensor, Tensor, Tensor, Row | None]:
    """Gradients of sum_i g_i value_i in y, weight, bias and, if wanted, beta."""
    # Scaling y by g, and dy at the end, saves a pass over every tile.
    scaled = (g[:, None] * logits.y).to(logits.y.dtype)
    dy = torch.zeros_like(logits.y, dtype=logits.sums)
    dweight = torch.zeros_like(logits.weight, dtype=logits.sums)
    dbias = torch.zeros_like(logits.bias, dtype=logits.sums)
    dbeta = torch.zeros_like(g, dtype=logits.sums) if wants_beta else None
    for i in logits.rows():
        strip = logits.strip(i)
        of_columns = slope(i, strip)
        for j in logits.columns():
            tile = of_columns(j)
            if dbeta is not None and strip.x is not None:
                dbeta[i] += (tile * strip.x[:, j]).sum(-1)
            tile = tile.to(logits.y.dtype)
            dbias[j] += g[i].to(tile.dtype) @ tile
            add_product(dy[i], tile, logits.weight[j])
            add_product(dweight[j], tile.mT, scaled[i])
    if dbeta is not None:
        dbeta *= g
    return dy.mul_(g[:, None]), dweight, dbias, dbeta


def _like(ctx: Any, *gradients: Tensor | None) -> Gradients:
    """Gradients in the dtypes of y, weight, bias and beta, which are saved first."""
    saved = ctx.saved_tensors
    return tuple(None if d is None else d.to(of.dtype) for d, of in zip(gradients, saved))
