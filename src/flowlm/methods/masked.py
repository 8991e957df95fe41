"""The masked-diffusion baseline (Sahoo et al. 2024, MDLM), on the same trunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn, sampling
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.method import Likelihood, Method
from flowlm.nn.size import Size

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Masked(Method):
    """Predict masked tokens from the rest; write by unmasking, independently within a step."""

    label: ClassVar[str] = "Masked diffusion"
    about: ClassVar[str] = "A masked diffusion language model, a baseline."
    likelihood: ClassVar[Likelihood] = "upper bound"

    temperature: float = 1.0
    """Of the sampler; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the mass from which the sampler draws (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        if not 0 <= self.temperature < float("inf"):
            raise Refusal(f"--method.temperature must be 0 or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise Refusal(f"--method.top-p must lie above 0 and up to 1, not {self.top_p}.")

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A trunk over v + 1 tokens, the last one the mask; it needs no time."""
        return nn.DiT(size, nn.Lookup(vocab + 1, size.width), vocab, length, times=0)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """The likelihood bound at one stratified time per text."""
        return core.Loss(self.nll(model, batch, rng), batch.weight)

    def sample(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[core.Tokens]:
        """Ancestral sampling in `steps` evaluations."""
        return sampling.unmask(model, prompt, model.vocab, steps, rng, self.temperature, self.top_p)

    def nll(self, model: nn.DiT, batch: core.Batch, rng: core.Streams) -> Float[Tensor, "b l"]:
        """An unbiased draw of the bound: masked tokens pay their nll over the share masked."""
        t = rng.stratified()
        noisy = core.mask(batch.tokens, t, model.vocab, rng)
        return model(noisy, rng=rng).nll(batch.tokens) * core.bound_weight(noisy == model.vocab, t)
