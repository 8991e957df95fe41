"""The masked-diffusion baseline (Sahoo et al. 2024, MDLM), on the same trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn
from flowlm.methods.method import Likelihood, Method
from flowlm.methods.strata import integral
from flowlm.nn.size import Size
from flowlm.sampling.ancestral import MaskedDenoiser, Unmask
from flowlm.sampling.masking import bound_weight, mask
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class MaskedDiffusion(Method):
    """Masked diffusion: its network, sampler and likelihood; methods differ in what they learn."""

    likelihood: ClassVar[Likelihood] = "upper bound"
    samplers: ClassVar[type[Sampler]] = Unmask

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A trunk over v + 1 tokens, the last one the mask; it needs no time.

        A student starts from its teacher's weights.
        """
        model = nn.DiT(size, nn.Lookup(vocab + 1, size.width), vocab, length, times=0)
        if teacher is not None:
            model.load_state_dict(teacher.state_dict())
        return model

    def denoiser(self, model: nn.DiT) -> MaskedDenoiser:
        """The network: it needs no time."""
        return MaskedDenoiser(model, model.vocab)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """An unbiased draw of the bound."""
        return masked_bound(partial(model, rng=rng), batch.tokens, model.vocab, rng, draws)


@dataclass(frozen=True)
class Masked(MaskedDiffusion):
    """Predict masked tokens from the rest; write by unmasking, independently within a step."""

    label: ClassVar[str] = "Masked diffusion"
    about: ClassVar[str] = "A masked diffusion language model, a baseline."

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """The likelihood bound at one stratified time per sequence."""
        return core.Loss(self.nll(model, batch, rng), batch.weight)


def masked_bound(
    predict: Callable[[core.Tokens], core.TokenDistribution],
    tokens: core.Tokens,
    mask_id: int,
    rng: core.Streams,
    draws: int = 1,
) -> Float[Tensor, "b l"]:
    """An unbiased draw of the bound: masked tokens pay their nll over the share masked, nats.

    It bounds what unmasking in many steps writes with any network, whatever that has learnt from.
    """

    def paid(t: core.Time) -> Float[Tensor, "b l"]:
        noisy = mask(tokens, t, mask_id, rng)
        return predict(noisy).nll(tokens) * bound_weight(noisy == mask_id, t)

    return integral(paid, rng, draws)
