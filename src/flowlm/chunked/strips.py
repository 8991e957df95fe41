"""Any reduction of the rows of softmax(cap(y W^T + c) + beta x), strip by strip.

A strip is a patch of whole rows (`points.patches`): one row a token, or one of each copy of a text
(`copies`). The forward pass runs the reduction on its log-probabilities and keeps the results
alone. The backward pass makes the strip again and leaves to autograd what lies between its products
and the results: bias, cap, evidence, log-softmax and the reduction. The products are differentiated
by hand, with sums over strips in float32 (float64 where y is).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowlm.chunked.points import LazyPoint
from flowlm.chunked.tiles import add_product, capped
from flowlm.core.distribution import Reduction
from flowlm.core.types import Patch


@dataclass(frozen=True, eq=False)
class Rows:
    """How rows are made from tensors, and what is asked of them."""

    patches: tuple[Patch, ...]
    products: torch.dtype
    """Of the matrix products."""
    autocast: bool
    """Whether autocast has lowered them: in both passes it lowers those of a target too."""
    cap: float | None
    x: LazyPoint | None
    """Evidence is beta times this point."""
    normalised: bool
    """Whether the reduction reads log-probabilities, or else logits."""
    f: Reduction
    operands: tuple[Any, ...]

    def log_probs(
        self,
        patch: Patch,
        products: Float[Tensor, "n m *copies v"],
        bias: Float[Tensor, " v"],
        beta: Float[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "n m *copies v"]:
        """Log-probabilities of a strip, nats, or its logits; at least float32."""
        logits = capped(products, bias, self.cap)
        if self.x is not None and beta is not None:
            logits = torch.addcmul(logits, beta[patch][..., None], self.x.write(patch))
        return logits.log_softmax(-1) if self.normalised else logits

    def reduced(self, logp: Float[Tensor, "n m *copies v"], patch: Patch) -> Tensor:
        """The reduction of a strip, (n, m, ...)."""
        kind = logp.device.type
        with torch.autocast(kind, self.products) if self.autocast else nullcontext():
            return self.f(logp, patch, *self.operands)


class Strips(torch.autograd.Function):
    """The reduction of all rows, (b, l, ...)."""

    @staticmethod
    def forward(y: Tensor, weight: Tensor, bias: Tensor, beta: Tensor | None, rows: Rows) -> Tensor:
        """y (b, l, *copies, d), weight (v, d), bias (v,), beta (b, l)."""
        lowered, columns = y.to(rows.products), weight.to(rows.products).mT
        answer = None
        for patch in rows.patches:
            logp = rows.log_probs(patch, lowered[patch] @ columns, bias, beta)
            value = rows.reduced(logp, patch)
            if answer is None:
                answer = value.new_empty(*y.shape[:2], *value.shape[2:])
            answer[patch] = value
        assert answer is not None
        return answer

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the inputs, and nothing that was made of them."""
        *tensors, ctx.rows = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients in y, weight, bias and beta."""
        y, weight, *others = (x for x in ctx.saved_tensors if x is not None)
        rows, sums = ctx.rows, torch.promote_types(y.dtype, torch.float32)
        lowered, columns = y.to(rows.products), weight.to(rows.products)
        totals = [torch.zeros_like(x, dtype=sums) for x in (y, weight, *others)]
        for patch in rows.patches:
            leaves = [lowered[patch] @ columns.mT, *(x.detach() for x in others)]
            with torch.enable_grad():
                logp = rows.log_probs(patch, *(x.requires_grad_() for x in leaves))
                value = rows.reduced(logp, patch)
            slope, *slopes = torch.autograd.grad(value, leaves, g[patch])
            totals[0][patch] = (slope @ columns).to(sums)
            add_product(totals[1], slope.flatten(0, -2).mT, lowered[patch].flatten(0, -2))
            for total, part in zip(totals[2:], slopes):
                total += part
        gradients = [d.to(x.dtype) for d, x in zip(totals, (y, weight, *others))]
        return *gradients, *(None,) * (5 - len(gradients))
