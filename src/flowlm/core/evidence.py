"""What a noisy row itself says of its token."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flowlm.core.rows import Patch, Rows
from flowlm.core.types import Time


def sharpness(t: Time) -> Time:
    """beta_t = t / (1 - t)^2: a row x = (1 - t) z + t e_w speaks for w with beta_t x_w nats.

    Its density is proportional to exp(-|x - t e_w|^2 / 2 (1 - t)^2), and |x| is the same for every
    w. Past 1e4 a row is certain; the bound keeps t = 1 finite.
    """
    return (t / (1 - t).square()).nan_to_num(posinf=1e4).clamp(max=1e4)


@dataclass(frozen=True, eq=False)
class Evidence:
    """sharpness * x, nats (b, l, v), not written out.

    The noise of one row says nothing of another, so by Bayes' rule
    D_t(x)(w) ~ exp(beta_t x_w) p(w | the other rows): a denoiser's logits are the evidence of the
    row itself, which is known, and the context, which has to be learnt.
    """

    x: Rows
    sharpness: Float[Tensor, "#b #l"]

    def sharper(self, by: Float[Tensor, "#b #l"]) -> Evidence:
        """With another sharpness added."""
        return Evidence(self.x, self.sharpness + by)

    def cut(self, patch: Patch) -> Evidence:
        """That of a patch of rows, which are written now."""
        return Evidence(self.x.cut(patch), self.sharpness.expand(self.x.shape[:2])[patch])

    def written(self) -> Float[Tensor, "b l v"]:
        """All of it at once, which takes vocabulary-sized memory."""
        return self.sharpness[..., None] * self.x.written()
