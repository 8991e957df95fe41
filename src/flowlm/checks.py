"""Plain values, checked: whole numbers within bounds, names of files, fields of their types."""

from __future__ import annotations

import operator
import os
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from flowlm.errors import Refusal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MANY = 2**31 - 1
"""Of steps, texts and all that is counted in memory: what 32 bits hold."""

# Annotations are strings, which take longer to read than a request to a server may.
_types_of = cache(get_type_hints)


def whole(what: str, value: object, least: int, most: int = MANY) -> int:
    """`value` as an int from `least` to `most`; numpy's will do. A Refusal names `what` it is."""
    wanted = f"{what} must be a whole number from {least:,} to {most:,}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, RuntimeError):  # a tensor of several numbers has its own
        raise Refusal(f"{wanted}, and it is of the type {type(value).__name__}.") from None
    if not least <= number <= most:
        # Python prints no number of thousands of digits.
        said = f"{number:,}" if abs(number) < 10**24 else "one of more than 24 digits"
        raise Refusal(f"{wanted}, not {said}.")
    return number


def file_name(what: str, value: object) -> str | Path:
    """`value` as a name or a path that a file system can have."""
    if not isinstance(value, str | Path):
        raise Refusal(
            f"{what} must be a str or a Path, and it is of the type {type(value).__name__}."
        )
    try:
        sound = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        sound = False
    if not sound or not str(value):
        raise Refusal(f"{what} {str(value)!r} cannot be the name of a file: choose another.")
    return value


def require_fields(value: DataclassInstance, prefix: str) -> None:
    """Refuse a field of a frozen dataclass that is not of its type, or none of its choices.

    `prefix` is what comes before its name in a sentence, such as `--train.`.
    """
    kinds = _types_of(type(value))
    for field in fields(value):
        given, kind = vars(value)[field.name], kinds[field.name]
        if not _is(given, kind):
            raise Refusal(
                f"{prefix}{field.name.replace('_', '-')} must be {_said(kind)}, not "
                f"{_shown(given)}."
            )


def _is(given: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(given, str) and given in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_is(given, one) for one in get_args(kind))
    if isinstance(given, bool) and kind is not bool:
        return False  # though bool is a kind of int
    return isinstance(given, int | float if kind is float else kind)


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_said(one) for one in get_args(kind))
    words = {int: "a whole number", float: "a number", str: "a word", bool: "True or False"}
    return words.get(kind, "None" if kind is NoneType else kind.__name__)


def _shown(given: object) -> str:
    if isinstance(given, str) and given.isidentifier() and len(given) < 40:
        return given
    return f"a value of the type {type(given).__name__}"
