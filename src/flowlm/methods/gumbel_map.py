"""A one-step map distilled from an autoregressive model by shared Gumbel noise (2610.00497)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.checks import require_fields
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.method import Method
from flowlm.nn.size import Size
from flowlm.sampling.draft import Draft, GumbelDenoiser
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

PAPER = "https://arxiv.org/abs/2610.00497"


@dataclass(frozen=True)
class GumbelMap(Method):
    """Learn the text that an autoregressive teacher would write with given Gumbel noise g.

    With g fixed its draws y_i = argmax(z_i(y_<i) + g_i) make the text a function of the noise, so
    one step loses nothing that a network can learn: noise and text are a pair, not two laws. Pairs
    cost no sampling: to a real text the noise is drawn that would have picked it, by the teacher's
    logits z of one pass (`chunked.gumbel_posterior`). Where the law of real texts is not the
    teacher's, that noise is not quite the noise of sampling.
    """

    label: ClassVar[str] = "Gumbel map"
    about: ClassVar[str] = (
        "A one-step map from Gumbel noise to the text that an autoregressive model, its teacher, "
        f"would draw with this noise ([paper]({PAPER}))."
    )
    samplers: ClassVar[type[Sampler]] = Draft
    usual_steps: ClassVar[int] = 1
    infills: ClassVar[bool] = False
    reads_prompts: ClassVar[bool] = False
    teachers: ClassVar[tuple[type[Method], ...]] = (Autoregressive,)

    teacher: str  # pyright: ignore[reportIncompatibleVariableOverride]
    """Run directory of a trained autoregressive model to distil."""
    causal: bool = False
    """Whether a token sees noise up to its own only, which is all that its pick depends on."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")

    @property
    def in_strips(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The noise is."""
        return True

    def with_teacher(self, name: str | None) -> GumbelMap:
        """The map of another teacher; it has one always."""
        return self if name is None else replace(self, teacher=name)

    def like_teacher(self) -> Autoregressive:
        """An autoregressive model."""
        return Autoregressive()

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A trunk that reads noise, started with the teacher's table and blocks; its head is new.

        The size is the teacher's but for the cap of its logits: noise, a part of the map's logits,
        has no bound.
        """
        encoder, uncapped = nn.Gumbel(vocab, size.width), replace(size, output_cap=None)
        model = nn.DiT(uncapped, encoder, vocab, length, times=0, causal=self.causal)
        if teacher is not None:
            own, theirs = model.state_dict(), teacher.state_dict()
            theirs["encoder.table"] = theirs["encoder.table"][:vocab]  # without the beginning
            fitting = {
                name: weight
                for name, weight in theirs.items()
                if not name.startswith("head.") and own[name].shape == weight.shape
            }
            model.load_state_dict(own | fitting)
        return model

    def prepare(self, network: nn.DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """The frequencies of tokens are the prior: the first texts are drawn from them."""
        network.set_prior(counts())

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """-log p(text | its noise), which is 0 for the map itself: token by token a cross-entropy.

        Rows of noise are a function of a seed and of the teacher's features: they are made a strip
        at a time, whenever they are read.
        """
        import torch  # not with the file: a recipe's options are shown without it

        assert teacher is not None, "a Gumbel map learns from a teacher"
        with torch.no_grad():
            prediction = Autoregressive().next_tokens(teacher, batch.tokens)
        noise = chunked.gumbel_posterior(rng, batch.tokens, prediction, model.vocab)
        return core.Loss(model(noise, rng=rng).nll(batch.tokens), batch.weight)

    def denoiser(self, model: nn.DiT) -> GumbelDenoiser:
        """The network."""
        return GumbelDenoiser(model, model.vocab)

    def nll(self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1) -> None:
        """None: the law of a function of noise has no density that is known."""
        return None
