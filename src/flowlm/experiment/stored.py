"""Experiments as strict JSON: what a run, an export and a shipped model say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.experiment.experiment import AnyData, Experiment
from flowlm.experiment.kinds import DATA, INPUTS, METHODS, RULES, SAMPLERS, Kinds
from flowlm.experiment.older import FORMAT, upgraded
from flowlm.hub.names import SHIPPED, located
from flowlm.methods.input import Input
from flowlm.methods.method import Method
from flowlm.methods.rule import Rule
from flowlm.sampling.sampler import Sampler


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text; `from_json` gives an equal value back."""
    stated = {"format": FORMAT, **_converter().unstructure(experiment)}
    return json.dumps(stated, indent=2) + "\n"


def settings_of(part: Method | Sampler) -> dict[str, Any]:
    """A method or a sampler, as an experiment.json holds it."""
    return _converter().unstructure(part, Method if isinstance(part, Method) else Sampler)


def from_json(text: str, source: Path) -> Experiment:
    """Read what `to_json` wrote. A Refusal for an unknown key, a wrong type or broken JSON."""
    from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
    from cattrs.v import transform_error

    try:
        stated = upgraded(json.loads(text))
        _require_known(stated, source)
        return _converter().structure(stated, Experiment)
    except json.JSONDecodeError as error:
        raise Refusal(f"{source} is not valid JSON (line {error.lineno}).") from error
    except BaseValidationError as error:
        raise Refusal(f"{source} is not an experiment: {transform_error(error)[0]}.") from error
    except (
        StructureHandlerNotFoundError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise Refusal(f"{source} is not an experiment of this version of flowlm.") from error


def read_experiment(path: str | Path) -> Experiment:
    """The experiment of a run, an export or a shipped model; a Refusal if there is none."""
    directory = located(path)
    file = directory / "experiment.json"
    try:
        return from_json(file.read_text(encoding="utf-8"), file)
    except (FileNotFoundError, NotADirectoryError) as error:
        known = ", ".join(SHIPPED)
        raise Refusal(
            f"{path} is not a run: it has no experiment.json (give a directory that "
            "`flowlm train` wrote, a released .ckpt file or folder, hf:owner/name on the hub, or a "
            f"shipped model: {known})."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read: {error}.") from error


def _exactly(value: Any, kind: type) -> Any:
    # cattrs would make 4 of "4" and of 4.7.
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return kind(value)


def _require_known(stated: Any, source: Path) -> None:
    """Refuse a later format, or a kind that nobody has named; the format leaves `stated`."""
    number = stated.pop("format")
    if type(number) is not int or number != FORMAT:
        raise Refusal(
            f"{source} has the format {number!r}, and this version of flowlm reads up to {FORMAT}: "
            "read it with a later version."
        )
    parts = {"method": METHODS, "sampler": SAMPLERS, "data": DATA}
    named = [(part, stated[part]["kind"], kinds) for part, kinds in parts.items()]
    named += [
        (part, stated["method"][part]["kind"], kinds)
        for part, kinds in {"input": INPUTS, "rule": RULES}.items()
        if part in stated["method"]
    ]
    for part, kind, kinds in named:
        if kind not in list(kinds):
            raise Refusal(f"{source}: this version of flowlm knows no {part} of the kind {kind!r}.")


TABLES: dict[Any, Kinds[Any]] = {
    Method: METHODS, Input: INPUTS, Rule: RULES, Sampler: SAMPLERS, AnyData: DATA,
}  # fmt: skip
"""What a field of a type may hold, by the name that stands beside its settings as `kind`."""


def _converter() -> Any:
    # Imported here: the command line builds experiments for its help, and reads none.
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    for kind in (int, float, str):
        converter.register_structure_hook(kind, _exactly)

    def structure(stated: dict[str, Any], of: Any) -> Any:
        settings = dict(stated)
        return converter.structure(settings, TABLES[of][settings.pop("kind")])

    def unstructure(value: Any) -> dict[str, Any]:
        kind = type(value)
        return {"kind": kind.__name__} | converter.unstructure(value, kind)

    converter.register_structure_hook_func(lambda of: of in TABLES, structure)
    converter.register_unstructure_hook_func(lambda of: of in TABLES, unstructure)
    return converter
