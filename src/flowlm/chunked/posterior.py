"""The mean of a table under what noisy rows say, for rows that are not written out.

Some rows at a time are written, turned into probabilities, averaged over and let go; going back
they are written again. So memory grows with tokens and words apart, never with their product.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowlm.chunked.points import LazyPoint
from flowlm.chunked.tiles import add_product
from flowlm.core.types import Patch, Time


def posterior_mean(
    table: Float[Tensor, "v d"], x: LazyPoint, beta: Time, log_prior: Float[Tensor, " v"]
) -> Float[Tensor, "b l d"]:
    """softmax(beta x + log_prior) @ table. Gradients flow into the table alone."""
    kind = table.device.type
    lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    products = torch.get_autocast_dtype(kind) if lowered else table.dtype
    return PosteriorMean.apply(table, x, beta.expand(x.shape[0], -1), log_prior, products)


class PosteriorMean(torch.autograd.Function):
    """softmax(beta x + log_prior) @ table, exactly, patch by patch."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, x: LazyPoint, beta: Time, log_prior: Tensor, products: torch.dtype
    ) -> Float[Tensor, "b l d"]:
        """In the dtype of the table; matrix products in `products`."""
        values = table.to(products)
        mean = table.new_empty(*x.shape[:2], table.shape[1])
        for patch in x.patches():
            mean[patch] = (_posterior(x, beta, log_prior, patch).to(products) @ values).to(
                mean.dtype
            )
        ctx.x, ctx.products = x, products
        ctx.save_for_backward(table, beta, log_prior)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dtable = p^T g."""
        table, beta, log_prior = ctx.saved_tensors
        dtable = torch.zeros_like(table)
        for patch in ctx.x.patches():
            p = _posterior(ctx.x, beta, log_prior, patch).to(ctx.products).flatten(0, 1)
            add_product(dtable, p.mT, g[patch].flatten(0, 1).to(ctx.products))
        return dtable, None, None, None, None


def _posterior(
    x: LazyPoint, beta: Time, log_prior: Float[Tensor, " v"], patch: Patch
) -> Float[Tensor, "n m v"]:
    """The probabilities of a patch, at least float32."""
    beta = beta[patch[0]] if beta.shape[1] == 1 else beta[patch]
    return torch.addcmul(log_prior, x.write(patch), beta[..., None]).softmax(-1)
