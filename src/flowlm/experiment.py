"""An experiment: one frozen value that names everything a run needs, and its strict JSON."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal
from flowlm.hub.names import PREFIX, SHIPPED, TOKENIZERS, aside, hub_id, located
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.nn.size import Size
from flowlm.train.plan import Plan

LENGTH = 2**24
"""Places are float32, which tells so many whole numbers apart."""
VOCAB = 2**20
"""Several times what the largest tokenizers know."""

AnyMethod = Flow | FlowMap | Autoregressive | Masked


@dataclass(frozen=True)
class Text:
    """Text from files."""

    path: str | None = None
    """What `flowlm prepare` wrote, or text: a UTF-8 text file, a directory of .txt files, a glob, a
    parquet or JSON file with a column `text`, or a directory of them."""
    length: int = 128
    """Tokens in a training text; documents are packed to this length."""
    documents: Literal["line", "blank"] = "line"
    """What separates documents: the end of a line, or a blank line."""
    tokenizer: str | None = None
    """characters, bpe, a file or folder, bert-base-uncased, gpt2, or hf:owner/name; by default the
    teacher's, or characters."""
    vocab: int = 4096
    """Size of a BPE vocabulary trained here; also what --dry-run assumes of a text that is not
    here, or too long to have its characters counted."""
    valid: float = 0.05
    """Share of the documents held out for validation."""
    unknown: float = 0.01
    """Share of the text that the tokenizer may not know."""


@dataclass(frozen=True)
class Generated:
    """Sentences of the demo's language, for which everything can be measured exactly."""

    length: ClassVar[int] = 18
    """Tokens in a sentence."""
    vocab: ClassVar[int] = 61
    """Its words."""


AnyData = Text | Generated


@dataclass(frozen=True)
class Experiment:
    """What to learn, from which text, how large, and for how long."""

    name: str
    """Name of the recipe it came from."""
    method: AnyMethod
    data: AnyData
    size: Size
    train: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is built."""
        require_fields(self, "experiment.")
        if isinstance(self.data, Text):
            require_fields(self.data, "--data.")
            whole("--data.length", self.data.length, 2, LENGTH)
            whole("--data.vocab", self.data.vocab, 2, VOCAB)
            self.size.require_reach(self.data.length)
            if not 0 < self.data.valid < 1:
                raise Refusal("--data.valid is a share: choose one between 0 and 1, such as 0.05.")
            if not 0 <= self.data.unknown <= 1:
                raise Refusal("--data.unknown is a share: choose one from 0 to 1, such as 0.01.")
            if self.data.tokenizer == "bpe" and self.data.vocab < 300:
                raise Refusal("--data.vocab must be at least 300: byte-level BPE starts from 256.")
        self.method.require_size(self.size)


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text; `from_json` gives an equal value back."""
    return json.dumps(_converter().unstructure(experiment), indent=2) + "\n"


def from_json(text: str, source: Path) -> Experiment:
    """Read what `to_json` wrote. A Refusal for an unknown key, a wrong type or broken JSON."""
    from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
    from cattrs.v import transform_error

    try:
        stated = json.loads(text)
        _require_known_kinds(stated, source)
        _drop_unused_cap(stated)
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


def in_likeness(experiment: Experiment, name: str, teacher: Experiment) -> Experiment:
    """A student's experiment with its teacher `name`, and the size, data and more of it.

    One that the method cannot learn from changes nothing: training refuses it.
    """
    method = experiment.method
    if not isinstance(teacher.method, method.teachers):
        return experiment
    alike = replace(method, teacher=name).taught_by(teacher.method)
    data = teacher.data
    if isinstance(data, Text):
        data = replace(data, tokenizer=None)  # the teacher's own, whatever text it will read
    return replace(experiment, method=alike, data=data, size=teacher.size)


def rooted(experiment: Experiment) -> Experiment:
    """The same experiment with places that mean the same from every directory.

    Paths become absolute and hub ids begin with `hf:`, so that nothing that was a path when it was
    chosen is ever looked for on the hub. Short names (characters, gpt2, demo) stay.
    """
    method, data = experiment.method, experiment.data
    if method.teacher is not None:
        method = replace(method, teacher=_rooted(method.teacher, SHIPPED))
    if isinstance(data, Text):
        learnt = data.tokenizer in ("characters", "bpe")
        tokenizer = data.tokenizer if learnt else _rooted(data.tokenizer, TOKENIZERS)
        path = data.path
        if path is not None and not path.startswith(PREFIX):
            path = _absolute(path)
        data = replace(data, path=path, tokenizer=tokenizer)
    return replace(experiment, method=method, data=data)


def require_places(experiment: Experiment, run: Path) -> None:
    """Refuse to go on with a run whose teacher, or whose text where it is needed, is gone.

    What a run has stored is a path unless it begins with `hf:`. A run that has prepared its text
    into itself needs no other.
    """
    method, data = experiment.method, experiment.data
    own = (run / "tokens" / "manifest.json").exists()
    needed: dict[str, str | None] = {
        "teacher": method.teacher,
        "text": data.path if isinstance(data, Text) and not own else None,
    }
    for what, place in needed.items():
        if place is None or place.startswith(PREFIX) or os.path.exists(located(place)):
            continue
        if what == "teacher" or not any(glob.iglob(place, recursive=True)):
            raise Refusal(
                f"The {what} of {run}, {place}, is not there any more: put it back, or write its "
                f"new place{aside(place)} into {run / 'experiment.json'}."
            )


def _rooted(name: str | None, short: Container[str]) -> str | None:
    if name is None or (name in short and not os.path.exists(name)):
        return name
    there = hub_id(name)
    return _absolute(name) if there is None else str(there)


def _absolute(path: str) -> str:
    place = os.path.expanduser(path)
    if glob.has_magic(place) and not os.path.isabs(place) and not os.path.exists(place):
        # A pattern, in a directory whose own name may have a bracket.
        return os.path.join(glob.escape(os.getcwd()), place)
    return os.path.abspath(place) if place else place


def _require_known_kinds(stated: Any, source: Path) -> None:
    for part, union in (("method", AnyMethod), ("data", AnyData)):
        kind = stated[part]["kind"]
        if kind not in [choice.__name__ for choice in get_args(union)]:
            raise Refusal(f"{source}: this version of flowlm knows no {part} of the kind {kind!r}.")


def _drop_unused_cap(stated: Any) -> None:
    # The bayes encoder once took any size, and left its cap aside: so do models of that time.
    size = stated["size"]
    if stated["method"].get("encoder") == "bayes" and type(size.get("output_cap", 0.0)) in (
        int,
        float,
    ):
        size["output_cap"] = None


def _exactly(value: Any, kind: type) -> Any:
    # cattrs would make 4 of "4" and of 4.7.
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return kind(value)


def _converter() -> Any:
    # Imported here: the command line builds experiments for its help, and reads none.
    from cattrs import Converter
    from cattrs.strategies import configure_tagged_union

    converter = Converter(forbid_extra_keys=True)
    for kind in (int, float, str):
        converter.register_structure_hook(kind, _exactly)
    for union in (AnyMethod, AnyData):
        configure_tagged_union(union, converter, tag_name="kind")
    return converter
