"""Duo: uniform-state diffusion as what the largest entries of a Gaussian flow do (2506.10892).

The largest entry of x_t = (1 - t) z + t e_w is the token w with probability a + (1 - a) / v, else
any other one: a uniform-state token at a = tau(t), tau the decoding clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from flowlm import chunked, core, nn
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.method import Method, require_teacher
from flowlm.methods.uniform_state import BoundDiffusion, UniformState, rate_of

PAPER = "https://arxiv.org/abs/2506.10892"


@dataclass(frozen=True)
class Curriculum(BoundDiffusion):
    """Learn uniform-state diffusion from softened Gaussian points: Duo's first stage.

    The network reads softmax(x_t / (|(t, 1 - t)| T)) @ E, which nearly is the row of the largest
    entry, and pays what the bound asks of the prediction for that token. Gradients are biased and
    of lower variance. `Duo` goes on with the tokens themselves.
    """

    label: ClassVar[str] = "Duo's curriculum"
    about: ClassVar[str] = (
        "The first stage of a uniform-state diffusion language model, Duo, before it has seen "
        f"tokens ([paper]({PAPER}))."
    )
    in_strips: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    temperature: float = 1e-3
    """T of the softmax. At 0 it is the largest entry."""
    first: float = 0.05
    """Least share of tokens that are kept."""
    last: float = 0.95
    """Largest share of tokens that are kept; times are even in log-SNR between the two."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_range(self.first, self.last)
        if not COLDEST <= self.temperature < float("inf"):
            raise Refusal(
                f"--method.temperature must be at least {COLDEST} and finite, not "
                f"{self.temperature}."
            )

    def time(self, vocab: int) -> core.Clock:
        """Shares of kept tokens by the time of their points."""
        return core.Decoding(vocab)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """The bound between `first` and `last`, of tokens read softly; nats."""
        clock, tokens, vocab = self.time(model.vocab), batch.tokens, model.vocab
        t, per_share = even_times(rng.stratified(), self.first, self.last, clock)
        space = chunked.LazyOneHot(vocab)
        x = core.interpolate(space.noise(rng, tokens.shape[1]), space.clean(tokens), t)
        soft = softened(x, t, self.temperature)
        a, z = clock.tau(t), soft.argmax()
        rate = rate_of(model(soft, a, rng=rng), tokens, z, a, vocab)
        return core.Loss(rate * clock.slope(t) * per_share, batch.weight)


@dataclass(frozen=True)
class Duo(BoundDiffusion):
    """Go on from the weights of Duo's curriculum with the bound of uniform-state diffusion."""

    label: ClassVar[str] = "Duo"
    about: ClassVar[str] = (
        f"A uniform-state diffusion language model with a curriculum, Duo ([paper]({PAPER}))."
    )
    teachers: ClassVar[tuple[type[Method], ...]] = (Curriculum,)
    continues: ClassVar[bool] = True

    teacher: str | None = None
    """Run directory of the curriculum: training starts from its weights and asks it nothing."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)

    def with_teacher(self, name: str | None) -> Duo:
        """The same after another curriculum."""
        return replace(self, teacher=name)

    def like_teacher(self) -> UniformState:
        """All of uniform-state diffusion has one network."""
        return UniformState()


COLDEST = 1e-6
"""Lowest temperature: float32 resolves entries of a row to this."""


def softened(x: core.Point, t: core.Time, temperature: float) -> core.TokenDistribution:
    """softmax(x_t / (|(t, 1 - t)| T)): signal and noise as the cosine and sine of an angle."""
    import torch

    assert isinstance(x, chunked.LazyPoint)
    size = (t.square() + (1 - t).square()).sqrt()
    flat = torch.zeros(x.shape[2], device=x.device)
    return chunked.posterior(chunked.Evidence(x, 1 / (size * temperature)), flat)


def even_times(
    share: core.Time, first: float, last: float, clock: core.Clock
) -> tuple[core.Time, core.Time]:
    """Times t, evenly spaced in log-SNR between tau(t) = first and last, and their dt / d share.

    gamma = 2 log(t / (1 - t)), so that dt / d gamma = t (1 - t) / 2.
    """
    import torch

    lower, upper = (2 * clock.t(torch.full_like(share, a)).logit() for a in (first, last))
    t = torch.sigmoid((lower + share * (upper - lower)) / 2)
    return t, t * (1 - t) / 2 * (upper - lower)


def require_range(first: float, last: float) -> None:
    """Refuse ends between which there is no time."""
    if not 0 < first < last < 1:
        raise Refusal(
            "--method.first and --method.last are shares of kept tokens, one above the other and "
            f"both between 0 and 1, not {first} and {last}."
        )
