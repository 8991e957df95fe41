"""Di4C: a masked diffusion model distilled into a mixture of products (2410.08709)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal
from flowlm.methods.masked import Masked, MaskedDiffusion, masked_bound
from flowlm.methods.method import Method, require_teacher
from flowlm.methods.sdtt import SDTT
from flowlm.nn.size import Size
from flowlm.sampling.ancestral import MaskedDenoiser
from flowlm.sampling.masking import mask, reveal_probability

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

PAPER = "https://arxiv.org/abs/2410.08709"
CLEAN, CLEAN_SHARE = 0.98, 0.3
"""From t = 0.98 on, the times of 30 % of the texts, a student learns the teacher's rows alone."""
MOST = 1024
"""Most latents a text: memory grows with them."""


@dataclass(frozen=True)
class Di4C(MaskedDiffusion):
    """Learn p(x | z) = E prod_i p_i(x_i | z, lambda), lambda ~ U[0, 1], from a masked diffusion.

    Tokens that are drawn in one step are independent given lambda, and dependent without it: one
    step can write what no product can. The student learns by consistency, to write in one step from
    t what a short step of the teacher and one step of its own write, from data, and near the clean
    end, where a product is enough, from the teacher.
    """

    label: ClassVar[str] = "Di4C"
    about: ClassVar[str] = (
        "A masked diffusion language model, distilled into a mixture of products to write in fewer "
        f"steps ([paper]({PAPER}))."
    )
    teachers: ClassVar[tuple[type[Method], ...]] = (Masked, SDTT)
    in_strips: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    teacher: str | None = None
    """Run directory of masked diffusion, or of a round of SDTT."""
    latents: int = 16
    """N: latents with which every text is read in a step of training. Cost and memory grow with it:
    4 N + 1 passes a text."""
    delta: float = 1 / 1024
    """Length of the teacher's step."""
    alpha: float = 0.1
    """Weight of the correlations of data; all of it for noisy texts, next to nothing for clean."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)
        # One component is a product, whose correlations are nothing.
        whole("--method.latents", self.latents, 2, MOST)
        if not 0 < self.delta <= 1:
            raise Refusal(
                "--method.delta is the length of a step of the teacher: choose one above 0 and up "
                f"to 1, not {self.delta}."
            )
        if not 0 <= self.alpha < math.inf:
            raise Refusal(f"--method.alpha must be 0 or more, and finite, not {self.alpha}.")

    def with_teacher(self, name: str | None) -> Di4C:
        """The student of another teacher."""
        return replace(self, teacher=name)

    def like_teacher(self) -> Masked:
        """All teachers have the network of masked diffusion."""
        return Masked()

    def network(
        self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None
    ) -> nn.LatentDiT:
        """The teacher's trunk, which reads the latent as one more token.

        It starts from the teacher's weights, and answers about as the teacher does: tokens attend
        to one that is new, about one part in l + 1. Not exactly, because components must differ.
        """
        model = nn.LatentDiT(size, vocab, length)
        if teacher is not None:
            model.load_state_dict(model.state_dict() | teacher.state_dict())
        return model

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """Consistency, data and the clean end; nats, what texts pay as a whole spread evenly.

        The time of a text decides what it learns. All read the student N times with gradients and N
        times without, and the teacher once.
        """
        import torch

        assert teacher is not None
        assert isinstance(model, nn.LatentDiT)
        t, clean = times(rng.stratified())
        noisy = mask(batch.tokens, t, model.vocab, rng)
        with torch.no_grad():
            guide = teacher(noisy)
            ahead = self._step(guide, noisy, t, model.vocab, rng)
            further = self._read(model, ahead, rng)
            written = draw_masked(further, ahead, model.vocab, rng)
        several = noisy[..., None].expand(ahead.shape)
        found = compared(
            self._read(model, several, rng, dropout=True),
            guide,
            chunked.MeanOfCopies(further, ahead, model.vocab),
            torch.cat((written, batch.tokens[..., None]), -1),
        )
        hidden = (noisy == model.vocab) & (batch.weight > 0)
        apart = correlation(found.logp, hidden)
        alpha = self.alpha * torch.sigmoid(20 * (0.5 - t))
        of_text = apart[:, :-1].mean(1, keepdim=True) + alpha * apart[:, -1:]
        spread = of_text / hidden.sum(1, keepdim=True).clamp(min=1)
        value = torch.where(clean, found.of_each, found.ahead + found.teacher + spread)
        return core.Loss(torch.where(hidden, value, 0.0), batch.weight)

    def _step(
        self,
        guide: core.TokenDistribution,
        noisy: core.Tokens,
        t: core.Time,
        mask_id: int,
        rng: core.Streams,
    ) -> Int[Tensor, "b l N"]:
        """N texts, where a step of the teacher may lead: its answer is one for all of them."""
        import torch

        shape = (noisy.shape[1], self.latents)
        drawn = chunked.draw_copies(guide, rng.uniform(*shape, dtype=torch.float64))
        chance = reveal_probability(t, (t + self.delta).clamp(max=1))
        shown = (noisy == mask_id)[..., None] & (rng.uniform(*shape) < chance[..., None])
        return drawn.where(shown, noisy[..., None])

    def _read(
        self,
        model: nn.LatentDiT,
        tokens: Int[Tensor, "b l N"],
        rng: core.Streams,
        dropout: bool = False,
    ) -> chunked.Copies:
        """The student's answers to N copies of every text, each with a latent of its own."""
        latents = rng.uniform(self.latents)
        copies = tokens.movedim(2, 0).flatten(0, 1)
        answer = model(copies, latents.T.reshape(-1, 1), rng=rng if dropout else None)
        return chunked.Copies(answer, self.latents)

    def denoiser(self, model: nn.DiT) -> MaskedDenoiser:
        """The network, with a fresh latent for every text and evaluation."""
        return MaskedDenoiser(model, model.vocab, latents=1)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """An unbiased draw of a bound: that of masked diffusion, at one latent a time.

        In many steps tokens come one by one, each with a latent of its own: it costs
        -log E p_i(x_i | lambda), which is at most E[-log p_i(x_i | lambda)], what is paid here.
        """
        denoiser = self.denoiser(model)

        def predict(tokens: core.Tokens) -> core.TokenDistribution:
            return denoiser.answer(tokens, rng)

        return masked_bound(predict, batch.tokens, model.vocab, rng, draws)


def times(share: core.Time) -> tuple[core.Time, Bool[Tensor, "b 1"]]:
    """Times t, and whether they are near the clean end, of even numbers in [0, 1).

    The published choice falls once for a batch. Here it is the text's own, so that a batch may have
    any size and any parts, and nothing is read from the device.
    """
    import torch

    rest = 1 - CLEAN_SHARE
    clean = share >= rest
    late = CLEAN + (1 - CLEAN) * (share - rest) / CLEAN_SHARE
    return torch.where(clean, late, CLEAN * share / rest), clean


def draw_masked(
    copies: chunked.Copies, tokens: Int[Tensor, "b l N"], mask_id: int, rng: core.Streams
) -> Int[Tensor, "b l N"]:
    """The masked tokens drawn, each copy's from its own rows."""
    import torch

    u = rng.uniform(*tokens.shape[1:], dtype=torch.float64)
    drawn = copies.reduce(lambda logp, patch: core.draw_tokens(logp, u[patch]))
    return drawn.where(tokens == mask_id, tokens)


@dataclass(frozen=True, eq=False)
class Compared:
    """N components at the tokens of K texts, and their divergences from two targets, nats."""

    logp: Float[Tensor, "b l N K"]
    """log p_i(x_i | z, lambda)."""
    ahead: Float[Tensor, "b l"]
    """KL(what lies ahead || mixture)."""
    teacher: Float[Tensor, "b l"]
    """KL(teacher || mixture)."""
    of_each: Float[Tensor, "b l"]
    """KL(teacher || component), their mean."""


def compared(
    copies: chunked.Copies,
    guide: core.TokenDistribution,
    ahead: core.Target,
    tokens: Int[Tensor, "b l K"],
) -> Compared:
    """All that is asked of the N rows of a token, in one reduction."""
    import torch

    def of_rows(logp: Float[Tensor, "n m N v"], patch: core.Patch) -> Float[Tensor, "n m k"]:
        with torch.no_grad():
            theirs = guide.log_probs(patch).exp()
            aim = ahead.probs(patch)
        places = tokens[patch][..., None, :].expand(*logp.shape[:-1], -1)
        mixed = chunked.mixture(logp)
        # The mean of divergences from one target is the divergence from the geometric mean.
        pairs = (aim, mixed), (theirs, mixed), (theirs, logp.mean(-2))
        divergences = torch.stack([excess(q, p) for q, p in pairs], -1)
        return torch.cat((logp.gather(-1, places).flatten(2), divergences), -1)

    numbers = copies.reduce(of_rows)
    logp = numbers[..., :-3].unflatten(-1, (copies.count, -1))
    return Compared(logp, *numbers[..., -3:].unbind(-1))


def excess(q: Float[Tensor, "*rows v"], logp: Float[Tensor, "*rows v"]) -> Float[Tensor, "*rows"]:
    """sum_v q (log q - log p): a divergence, where p is a distribution."""
    import torch

    return (torch.special.xlogy(q, q) - torch.where(q > 0, q * logp, 0.0)).sum(-1)


def correlation(
    logp: Float[Tensor, "b l N K"], hidden: Bool[Tensor, "b l"]
) -> Float[Tensor, "b K"]:
    """C = sum_i log E p_i(x_i) - log E prod_i p_i(x_i), E the mean over N; over hidden tokens.

    Nats. Nothing for a product. Under the law q of the x, E_q C + sum_i KL(q_i || E p_i) is
    E_q[-log E prod_i p_i] less the entropies of the q_i, which are constant: a likelihood, whose
    marginal part is computed exactly instead of being drawn.
    """
    import torch

    counted = torch.where(hidden[..., None, None], logp, 0.0)
    return chunked.mixture(counted).sum(1) - chunked.mixture(counted.sum(1))
