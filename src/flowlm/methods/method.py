"""The seam between mathematics and machinery: what every method answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from flowlm import core
from flowlm.errors import Refusal
from flowlm.nn.size import Size
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from flowlm.nn import DiT


Own = TypeVar("Own", bound="Method")
Likelihood = Literal["exact", "upper bound"] | None


class Method(ABC):
    """A way to model text. A frozen dataclass: its fields are its configuration.

    This file and its siblings import no torch by themselves, so that the command line can show a
    recipe's options at once.
    """

    label: ClassVar[str]
    """Its name in tables, plots and cards."""
    about: ClassVar[str]
    """What it is, in a sentence of Markdown, for a card."""
    likelihood: ClassVar[Likelihood] = None
    """What `nll` is; None where it is None."""
    likelihood_of: ClassVar[str] = "its sampler in the limit of many steps"
    """The sampler of whose law of texts `nll` is the likelihood; "" where there is one law only."""
    samplers: ClassVar[type[Sampler]]
    """The kind of samplers that can write with it."""
    usual_steps: ClassVar[int] = 32
    """Steps for whoever has no reason to choose others."""
    times: ClassVar[int] = 0
    """Clock times that its network reads: none, the time of its input, or also that of its aim."""
    teachers: ClassVar[tuple[type[Method], ...]] = ()
    """Methods that it can be distilled from: then it has a field `teacher`, the name of a run."""
    teacher: str | None = None
    continues: ClassVar[bool] = False
    """Whether it only goes on from its teacher's weights: a later stage of one training."""
    infills: ClassVar[bool] = True
    """Whether what it writes depends on given tokens on both sides, not on the left alone."""
    reads_prompts: ClassVar[bool] = True
    """Whether what it writes depends on given tokens at all."""
    in_strips: bool = False
    """Whether rows of v numbers exist a strip at a time before the head, in many operations."""

    def time(self, vocab: int) -> core.Clock | None:
        """The clock for a vocabulary; None where there is no time."""
        return None

    def space(self, model: DiT) -> core.Space | None:
        """The space of the states that the model reads; None where it reads tokens."""
        return None

    def require_size(self, size: Size) -> None:
        """Refuse a size that this method cannot have."""

    def writes_with(self, sampler: type[Sampler]) -> bool:
        """Whether a kind of sampler can write with this method."""
        own = sampler is self.samplers
        return own or (issubclass(sampler, self.samplers) and sampler.general)

    def require_sampler(self, sampler: Sampler) -> None:
        """Refuse a sampler that cannot write with this method."""
        if not self.writes_with(type(sampler)):
            raise Refusal(
                f"The sampler {type(sampler).__name__} does not write with {type(self).__name__}, "
                f"which needs a {self.samplers.__name__}."
            )

    def shared(self) -> dict[str, object]:
        """Options that student and teacher must have in common, by name."""
        return {}

    def with_teacher(self: Own, name: str | None) -> Own:
        """This method with a teacher of this name, where it takes one."""
        return self

    def taught_by(self: Own, theirs: Method, sampler: Sampler) -> Own:
        """This method with what a student takes over from its teacher and how that one writes."""
        return self

    def like_teacher(self) -> Method | None:
        """A method with the network that a teacher has; None without a teacher."""
        return None

    @abstractmethod
    def network(self, size: Size, vocab: int, length: int, teacher: DiT | None = None) -> DiT:
        """A new network, started from the teacher's weights where the method distils one."""

    def prepare(self, network: DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """Put in place what a new network knows before training, and its teacher has not told it.

        `counts` tells how often each token comes up in the text; it is called where it is needed.
        """

    @abstractmethod
    def loss(
        self, model: DiT, batch: core.Batch, rng: core.Streams, teacher: DiT | None = None
    ) -> core.Loss:
        """Nats the model pays for a batch, token by token. `rng` has one stream per sequence."""

    @property
    def evenly(self) -> int:
        """Sequences of which every share that learns something else is a whole number."""
        return 1

    @abstractmethod
    def denoiser(self, model: DiT) -> Any:
        """The network as its samplers ask it: the type is that of their `frames`."""

    @abstractmethod
    def nll(
        self, model: DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"] | None:
        """Nats per token whose sum over a sequence is -log p(sequence), or bounds it from above.

        Of a bound, an unbiased draw: the mean over `draws` times, at the cost of as many
        evaluations of the network or one more. None without a bound.
        """

    def next_tokens(self, model: DiT, tokens: core.Tokens) -> core.TokenDistribution | None:
        """Distribution of every token given those before it; None where the method has none."""
        return None

    def cross_entropy_at(
        self, model: DiT, batch: core.Batch, tau: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Nats that the clean tokens cost, seen at clock time tau; None without a clock."""
        return None


def require_teacher(method: Method) -> None:
    """Refuse to learn from nothing."""
    if method.teacher is None:
        kinds = " or ".join(kind.__name__ for kind in method.teachers)
        raise Refusal(
            f"{method.label} cannot teach itself: give --method.teacher, the run of a {kinds}."
        )
