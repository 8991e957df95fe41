"""From what is asked to what is ordered, and from tokens to what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from flowlm.core.types import FREE
from flowlm.errors import Refusal
from flowlm.experiment.kinds import SAMPLERS, by_word, spelt
from flowlm.model.language_model import LanguageModel
from flowlm.sampling.sampler import Sampler
from flowlm.serve.bodies import Asked, BadField, Film
from flowlm.tasks.task import Task

SETTINGS = ("temperature", "top_p", "gamma")
"""Of a sampler, that a request may state."""
TOKENS = 16_384
"""Most tokens that one request may have written."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """Texts to write: given tokens of the network's length, of which the first `length` count.

    They are plain numbers. A request makes no tensors where none of its tokens is given: every
    operation of torch gives the interpreter away to the threads that write, and waits for it again.
    """

    sampler: Sampler
    steps: int
    given: list[list[int]]
    """FREE where the model writes; all of the same places."""
    length: int

    @property
    def prompted(self) -> bool:
        """Whether any token is given."""
        return any(token != FREE for row in self.given for token in row)


class Texts:
    """A model as requests speak of it."""

    def __init__(self, model: LanguageModel) -> None:
        if model.tokenizer is None:
            raise Refusal("This model has no tokenizer, so it cannot be served: give --tokenizer.")
        self.model, self.tokenizer = model, model.tokenizer
        self._parts = model.parts
        self.words = [model.tokenizer.decode([i]) for i in range(model.network.vocab)]
        self._ids = {word: i for i, word in reversed(list(enumerate(self.words)))}

    def wanted(self, asked: Asked, n: int = 1) -> Wanted:
        """The texts that a request means; a BadField for what this model cannot do."""
        sampler = self.sampler(asked)
        method = self.model.experiment.method
        steps = method.usual_steps if asked.steps is None else asked.steps
        if not sampler.counts_steps:
            steps = 1
        if isinstance(asked, Film) and asked.given is not None:
            given, length = self._pinned(asked.given), self.model.length
        else:
            given, length = self._prompted(asked)
        if len(given) * n * length > TOKENS:
            raise BadField(
                f"That is {len(given) * n * length:,} tokens, and a request may have {TOKENS:,}: "
                "ask for fewer texts.",
                "n",
            )
        behind = [FREE] * (self.model.length - length)
        return Wanted(sampler, steps, [row + behind for row in given for _ in range(n)], length)

    def sampler(self, asked: Asked) -> Sampler:
        """The sampler that is named, with the settings that are."""
        experiment = self.model.experiment
        chosen = experiment.sampler
        if asked.sampler is not None:
            known = by_word(SAMPLERS)
            if asked.sampler not in known:
                raise BadField(
                    f"There is no sampler {asked.sampler[:40]!r}: choose one of "
                    f"{', '.join(self.samplers())}.",
                    "sampler",
                )
            chosen = known[asked.sampler]()
        assert is_dataclass(chosen)
        assert isinstance(chosen, Sampler)
        own = {field.name for field in fields(chosen)}
        settings = {name: vars(asked)[name] for name in SETTINGS}
        for name, value in settings.items():
            # What OpenAI's clients send by default changes nothing where there is no such setting.
            if value is not None and name not in own and value != 1:
                raise BadField(f"{spelt(type(chosen).__name__)} has no {name}: leave it out.", name)
        new = {name: value for name, value in settings.items() if value is not None and name in own}
        try:
            if new:
                chosen = replace(chosen, **{name: float(value) for name, value in new.items()})
            experiment.method.require_sampler(chosen)
        except Refusal as refusal:
            raise BadField(
                str(refusal).replace("--sampler.", ""), next(iter(new), "sampler")
            ) from None
        return chosen

    def samplers(self) -> list[str]:
        """Words of the samplers that write with this model."""
        method = self.model.experiment.method
        return [word for word, kind in by_word(SAMPLERS).items() if method.writes_with(kind)]

    def _prompted(self, asked: Asked) -> tuple[list[list[int]], int]:
        """Given tokens and how many each text has."""
        if asked.suffix is not None and isinstance(asked.prompt, list):
            raise BadField("With a suffix, give one prompt.", "prompt")
        try:
            room = self._room(asked)
            if asked.template is not None:
                return self._parts.template(asked.template, 1, room).tolist(), room
            prompts = asked.prompt if isinstance(asked.prompt, list) else [asked.prompt or ""]
            if asked.suffix:
                template = f"{_literal(prompts[0])}[..]{_literal(asked.suffix)}"
                return self._parts.template(template, 1, room).tolist(), room
            return [self._given(prompt, room) for prompt in prompts], room
        except Refusal as refusal:
            where = "template" if asked.template is not None else "prompt"
            raise BadField(str(refusal), where) from None

    def _given(self, prompt: str, room: int) -> list[int]:
        return self._parts.given(prompt, 1, room)[0].tolist() if prompt else [FREE] * room

    def _room(self, asked: Asked) -> int:
        """Tokens of a text: what is given, what may be written, and what every text has."""
        length = self.model.length
        if asked.max_tokens is None or asked.template is not None:
            return length
        prompts = asked.prompt if isinstance(asked.prompt, list) else [asked.prompt or ""]
        known = max(map(self._count, prompts)) + self._count(asked.suffix or "")
        return min(known + asked.max_tokens + length - self._parts.page(length).room, length)

    def _count(self, text: str) -> int:
        return self._parts.encode(text).shape[1] if text else 0

    def _pinned(self, given: Sequence[str | None]) -> list[list[int]]:
        """Tokens by their texts, place by place."""
        if len(given) != self.model.length:
            raise BadField(
                f"given has {len(given)} places, and texts of this model have {self.model.length}.",
                "given",
            )
        row = []
        for word in given:
            if word is not None and word not in self._ids:
                raise BadField(f"There is no token {word[:40]!r} in the vocabulary.", "given")
            row.append(FREE if word is None else self._ids[word])
        tokens = torch.tensor([row])
        try:
            return self._parts.given(tokens, 1, self.model.length).tolist()
        except Refusal as refusal:
            raise BadField(str(refusal), "given") from None

    def valid(self, tokens: Sequence[int]) -> bool | None:
        """Whether a text is one of the task's; None where no program can tell."""
        data = self.model.experiment.data
        if not isinstance(data, Task):
            return None
        return bool(data.valid(torch.tensor([list(tokens)]))[0])

    def told(self, tokens: Sequence[int], wanted: Wanted, row: int, echo: bool) -> str:
        """The text of what was written, or of all of it."""
        tokens = list(tokens)[: wanted.length]
        if not echo:
            tokens = [token for token, given in zip(tokens, wanted.given[row]) if given == FREE]
        return self.tokenizer.decode(tokens)

    def described(self) -> dict[str, Any]:
        """Facts that a page needs to know of the model."""
        experiment = self.model.experiment
        method, data = experiment.method, experiment.data
        return {
            "method": method.label,
            "length": self.model.length,
            "vocab": self.model.network.vocab,
            "parameters": sum(p.numel() for p in self.model.network.parameters()),
            "infills": method.infills,
            "prompts": method.reads_prompts,
            "usual_steps": method.usual_steps,
            "counts_steps": experiment.sampler.counts_steps,
            "samplers": self.samplers(),
            "settings": [name for name in SETTINGS if name in vars(experiment.sampler)],
            "default_sampler": spelt(type(experiment.sampler).__name__),
            "task": data.about if isinstance(data, Task) else None,
        }


def _literal(text: str) -> str:
    """A text in which nothing is a gap."""
    return text.replace("[..", "[[..")
