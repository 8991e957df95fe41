"""The shape of report.json as a JSON Schema, from the types that the check at the door reads."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from flowlm.evaluate.measures import INTERVALS, JUDGES, KINDS, MEASURES, SPREAD
from flowlm.evaluate.report.schema import Kind, Reference, Report, Row

_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12: figures by the keys of MEASURES, each number or null."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of flowlm",
        "description": "Written by flowlm evaluate, compare and demo.",
    } | _object(Report, {"rows": _rows("method", "steps"), "controls": _rows("method")})


def _rows(*required: str) -> dict[str, Any]:
    return {"type": ["array", "null"], "items": _figures(*required)}


def _figures(*required: str) -> dict[str, Any]:
    """A row of figures by the list of measures."""
    number = {"type": ["number", "null"]}
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    known: dict[str, Any] = {
        key: number | {"description": f"{measure.heading}, {measure.unit}."}
        for key, measure in MEASURES.items()
    }
    known |= {
        "method": {"type": "string"},
        "steps": {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}]},
        "entropy": number,
        INTERVALS: {"type": "object", "additionalProperties": pair},
        JUDGES: {"type": "object", "additionalProperties": {"type": "object"}},
        KINDS: {"type": "array", "items": _object(Kind, {})},
        SPREAD: {"type": "object", "additionalProperties": {"type": "number"}},
    }
    return {
        "type": "object",
        "properties": known,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _object(shape: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(shape, include_extras=True)
    return {
        "type": "object",
        "properties": {key: known.get(key) or _type(hint) for key, hint in hints.items()},
        "required": sorted(shape.__required_keys__),
        "additionalProperties": False,
    }


def _type(hint: Any) -> dict[str, Any]:
    """The schema of a type."""
    if hint in (Reference, Row):
        return _figures()
    if is_typeddict(hint):
        return _object(hint, {})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(part) for part in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1])}
    return {"type": _PLAIN[hint]} if hint in _PLAIN else {}
