"""Steering a model and editing with it, as methods: guidance, rewards, variations, mixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from flowlm.core.types import Point, Tokens
from flowlm.errors import Refusal
from flowlm.sampling.guidance import GuidedSampler
from flowlm.sampling.look_ahead import LookAhead
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from flowlm.model.editing import Editable
    from flowlm.model.language_model import LanguageModel


class Controls:
    """A part of `LanguageModel`: its methods need what a model has."""

    def guided(
        self, by: LanguageModel | None = None, dropout: float | None = None,
        prompt: bool = False, weight: float = 2.0, sampler: Sampler | None = None,
    ) -> GuidedSampler:  # fmt: skip
        """A sampler whose every answer is led away from a weaker network's.

        The weaker network is another run of the same kind (`by`, such as an earlier or a smaller
        one), this one with `dropout`, or this one with the given tokens as noisy as the rest
        (`prompt=True`). Rows are log D + (weight - 1) (log D - log D_weak), normalised: weight 1
        changes nothing. Two evaluations a step. `sampler` is what is led, by default the model's.

        >>> model.generate(4, steps=8, sampler=model.guided(dropout=0.1, weight=2.0))
        """
        from flowlm.model.guided import guided

        return guided(_whole(self), by, dropout, prompt, weight, sampler)

    def rewarded(
        self, reward: Callable[[list[str]], Sequence[float]], candidates: int = 8
    ) -> LookAhead:
        """A sampler that writes towards a reward of texts: the best of `candidates` points a step.

        `reward` gives a number for each of some texts. Each step evaluates the network once for
        every candidate (`sampling.LookAhead`, which also takes a reward of tokens).

        >>> model.generate(4, steps=4, sampler=model.rewarded(lambda ts: [-len(t) for t in ts]))
        """
        if not callable(reward):
            raise Refusal("The reward must be a function from texts to a score for each.")
        tokenizer = _whole(self).tokenizer
        if tokenizer is None:
            raise Refusal(
                "This model has no tokenizer: give LookAhead(reward=...) a reward of tokens, or "
                "load it with tokenizer=."
            )

        def scores(tokens: Tokens) -> Sequence[float]:
            return reward([tokenizer.decode(row) for row in tokens.tolist()])

        return LookAhead(reward=scores, candidates=candidates)

    def vary(
        self, text: Editable, strength: float, n: int = 1, steps: int = 8,
        seed: int = 0, sampler: Sampler | None = None,
    ) -> list[str]:  # fmt: skip
        """`n` texts like a text, the less so the larger the strength in [0, 1].

        The text is noised to clock time 1 - strength, which is about the share of its tokens that
        can still be read, and written on from there. At 0 it is the text itself.
        `model.editing.vary` gives tokens.

        >>> model = flowlm.load("demo")
        >>> text = model.generate(1, steps=8)[0]
        >>> model.vary(text, 0.0) == [text]
        True
        """
        from flowlm.model.editing import vary

        model = _whole(self)
        return model.decode(vary(model, text, strength, n, steps, seed, sampler))

    def between(
        self, first: Editable | int, second: Editable | int,
        count: int = 7, steps: int = 1, seed: int = 0, sampler: Sampler | None = None,
    ) -> list[str]:  # fmt: skip
        """`count` texts on the way from one to another, by way of their noises.

        A number is that of a text of the seed, whose noise is known; that of a text or of tokens
        (1, l) is found by following the flow back (`noise_of`). `model.editing.between` gives
        tokens.
        """
        from flowlm.model.editing import between

        model = _whole(self)
        return model.decode(between(model, first, second, count, steps, seed, sampler))

    def noise_of(self, text: Editable, steps: int = 32, seed: int = 0) -> Point:
        """A noise from which the flow leads to a text, by 2 * `steps` evaluations.

        `model.editing.write_from` writes from it. A text has no one noise: the seed chooses.
        """
        from flowlm.model.editing import noise_of

        return noise_of(_whole(self), text, steps, seed)


def _whole(part: Controls) -> LanguageModel:
    return cast("LanguageModel", part)
