"""Bodies of requests: strict JSON, every field of its type, none that is not known."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from flowlm.errors import Refusal

STEPS = 256
"""Most steps of a text."""

Body = TypeVar("Body", bound="Asked")

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class BadField(Refusal):
    """A request that cannot be: what is wrong with it, and with which of its fields."""

    def __init__(self, sentence: str, field: str | None = None) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True)
class Asked:
    """Fields of every request for texts."""

    model: str | None = None
    """The name that /v1/models gives; there is one."""
    prompt: str | list[str] | None = None
    """Text that the text begins with; of several, one for each."""
    suffix: str | None = None
    """Text that it ends with."""
    template: str | None = None
    """Text with gaps, in place of both: the cat [..3] mat [..]."""
    max_tokens: int | None = None
    """Tokens to write, at most; by default as many as there is room for."""
    steps: int | None = None
    seed: int | None = None
    """Texts depend on it and their number alone; by default one is drawn, and told."""
    sampler: str | None = None
    """By its word on the command line; by default the model's own."""
    temperature: float | None = None
    top_p: float | None = None
    gamma: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.steps is not None and not 1 <= self.steps <= STEPS:
            raise BadField(f"steps must lie between 1 and {STEPS}, not {self.steps}.", "steps")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise BadField(f"seed must lie between 0 and 2^32 - 1, not {self.seed}.", "seed")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise BadField(f"max_tokens must be at least 1, not {self.max_tokens}.", "max_tokens")
        if self.template is not None and (self.prompt is not None or self.suffix is not None):
            raise BadField("Give a template, or a prompt and a suffix, not both.", "template")


@dataclass(frozen=True)
class Completion(Asked):
    """POST /v1/completions."""

    n: int = 1
    """Texts for each prompt."""
    echo: bool = False
    """Whether an answer holds what was given as well."""
    stream: bool = False
    """Whether answers come as events, each when its text is written."""
    user: str | None = None
    """For other servers; not used."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        if not 1 <= self.n <= 1024:
            raise BadField(f"n must lie between 1 and 1024, not {self.n}.", "n")
        if isinstance(self.prompt, list) and not 1 <= len(self.prompt) <= 256:
            raise BadField("A list of prompts must have 1 to 256 of them.", "prompt")


@dataclass(frozen=True)
class Film(Asked):
    """POST /v1/film."""

    given: list[str | None] | None = None
    """The text of a token or null for every place, in place of a prompt."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        if isinstance(self.prompt, list):
            raise BadField("A film is of one text: give one prompt.", "prompt")
        others = (self.prompt, self.suffix, self.template, self.max_tokens)
        if self.given is not None and any(other is not None for other in others):
            raise BadField("Give given tokens, or a prompt or a template, not both.", "given")


def read(body: bytes, kind: type[Body]) -> Body:
    """A request from JSON; a BadField in one sentence for anything else."""
    try:
        stated = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadField):
            raise
        raise BadField("The body is not valid JSON: send one object.") from error
    if not isinstance(stated, dict):
        raise BadField('The body must be a JSON object, such as {"steps": 4}.')
    hints = _hints(kind)
    for name, value in stated.items():
        if name not in hints:
            raise BadField(f"There is no field {name[:40]!r} in this request.", name[:40])
        if not _is(value, hints[name]):
            raise BadField(f"{name} must be {_said(hints[name])}.", name)
    return kind(**stated)


# Annotations are strings, which take longer to read than a body does.
_hints = cache(typing.get_type_hints)


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadField("A field stands in the body twice.")
    return found


def _no_constant(name: str) -> None:
    raise BadField(f"{name} is no number of JSON.")


def _is(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type; a bool is no number here."""
    if isinstance(hint, types.UnionType):
        return any(_is(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        (of,) = typing.get_args(hint)
        return isinstance(value, list) and all(_is(each, of) for each in value)
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e300
    return type(value) is hint


def _said(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_said(each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list, each of which is {_said(typing.get_args(hint)[0])}"
    return "null" if hint is types.NoneType else NAMES[hint]
