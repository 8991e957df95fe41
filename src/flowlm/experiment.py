"""An experiment: one frozen value that names everything a run needs, and its strict JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from flowlm.errors import Refusal
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.nn.size import Size
from flowlm.train.plan import Plan

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
    """characters, bpe, a file or folder, bert-base-uncased, gpt2, or a hub id; by default the
    teacher's, or characters."""
    vocab: int = 4096
    """Size of a BPE vocabulary trained here; also what --dry-run assumes of a text that is not
    here, or too long to have its characters counted."""
    valid: float = 0.05
    """Share of the documents held out for validation."""


@dataclass(frozen=True)
class Generated:
    """Sentences of the demo's language, for which everything can be measured exactly."""


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
        if isinstance(self.data, Text):
            if self.data.length < 2:
                raise Refusal("--data.length must be at least 2 tokens.")
            if not 0 < self.data.valid < 1:
                raise Refusal("--data.valid is a share: choose one between 0 and 1, such as 0.05.")
            if self.data.tokenizer == "bpe" and self.data.vocab < 300:
                raise Refusal("--data.vocab must be at least 300: byte-level BPE starts from 256.")
        if isinstance(self.method, FlowMap):
            for name, texts in (
                ("batch", self.train.batch), ("micro-batch", self.train.micro_batch),
            ):  # fmt: skip
                if texts % 2:
                    raise Refusal(
                        f"--train.{name} {texts} must be even: half of a flow map's batch learns "
                        "the flow and half learns to jump."
                    )


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


SHIPPED = {"demo": Path(__file__).parent / "weights" / "demo"}
"""Models that come with the package, by the names that stand for them."""


def located(path: str | Path) -> Path:
    """The directory that a RUN argument means: itself, or the shipped model of that name."""
    directory = Path(path)
    return directory if directory.exists() else SHIPPED.get(str(path), directory)


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
            f"`flowlm train` wrote, a released .ckpt file or folder, owner/name on the hub, or a "
            f"shipped model: {known})."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read: {error}.") from error


def in_likeness(experiment: Experiment, teacher: Experiment) -> Experiment:
    """A flow map's experiment with its teacher's size, data, encoder, clock and temperature."""
    method, theirs = experiment.method, teacher.method
    if not isinstance(method, FlowMap) or not isinstance(theirs, Flow):
        return experiment
    alike = replace(
        method, encoder=theirs.encoder, clock=theirs.clock, temperature=theirs.temperature
    )
    data = teacher.data
    if isinstance(data, Text):
        data = replace(data, tokenizer=None)  # the teacher's own, whatever text it will read
    return replace(experiment, method=alike, data=data, size=teacher.size)


def _require_known_kinds(stated: Any, source: Path) -> None:
    for part, union in (("method", AnyMethod), ("data", AnyData)):
        kind = stated[part]["kind"]
        if kind not in [choice.__name__ for choice in get_args(union)]:
            raise Refusal(f"{source}: this version of flowlm knows no {part} of the kind {kind!r}.")


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
