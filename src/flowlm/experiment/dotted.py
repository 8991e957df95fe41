"""Values of an experiment by dotted names: `data.path` is the path of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from flowlm.errors import Refusal, meant
from flowlm.experiment.kinds import INPUTS, RULES, SAMPLERS, Kinds, by_word

Part = TypeVar("Part")
Options = Mapping[str, Any]
"""Values by dotted names: {"train.steps": 200, "data.path": "book.txt", "sampler": "heun"}."""

KINDS: dict[str, Kinds[Any]] = {"sampler": SAMPLERS, "input": INPUTS, "rule": RULES}
"""Parts that may be named by the word of the command line."""


def has(part: object, name: str) -> bool:
    """Whether a dotted name is that of a value in a dataclass, or in its parts."""
    head, dot, rest = name.partition(".")
    known = _values(part)
    return head in known and (not dot or has(known[head], rest))


def changed(part: Part, options: Options, within: str = "") -> Part:
    """A frozen dataclass with other values in its fields, and in those of its parts.

    All at once: values that go together are checked together.
    """
    assert is_dataclass(part)
    assert not isinstance(part, type)
    known = _values(part)
    new: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        head, _, rest = name.partition(".")
        if head not in known:
            raise Refusal(
                f"There is no option {within}{head}{meant(head, known)}: choose one of "
                f"{', '.join(known)}."
            )
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            new[head] = _of_kind(head, value)
    for head, inner in deeper.items():
        value = new.get(head, known[head])
        if not is_dataclass(value):
            raise Refusal(
                f"{within}{head} is one value, without {next(iter(inner))}: set it alone."
            )
        new[head] = changed(value, inner, f"{within}{head}.")
    return replace(part, **new)


def _values(part: object) -> dict[str, Any]:
    """The fields of a dataclass by name; of anything else none."""
    if not is_dataclass(part):
        return {}
    return {field.name: vars(part)[field.name] for field in fields(part)}


def _of_kind(field: str, value: object) -> object:
    """The part that a word stands for, in its field; anything else as it is."""
    if field not in KINDS or not isinstance(value, str):
        return value
    known = by_word(KINDS[field])
    if value not in known:
        raise Refusal(
            f"There is no {field} {value!r}{meant(value, known)}: choose one of {', '.join(known)}."
        )
    return known[value]()
