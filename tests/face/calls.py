"""Calls of the Python face, each with what comes of it: run as a script it prints them as JSON.

A process of its own runs them, since the other tests check types before flowlm sees a value.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import flowlm
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.nn.size import Size
from flowlm.sampling import Bridge, Euler, LeftToRight, Unmask
from flowlm.train.plan import Plan
from writing import usual

L, V = 5, 7
SIZE = Size(blocks=1, width=8, heads=2, condition=4, dropout=0.0)


@dataclass(frozen=True)
class Face:
    """Models to ask, and a place to write to."""

    map: Any
    """With a tokenizer."""
    flow: Any
    left: Any
    """Autoregressive."""
    place: Path


def small(method: Any, tokenizer: Tokenizer | None = None) -> Any:
    torch.manual_seed(0)
    network = method.network(SIZE, V, L)
    experiment = Experiment("small", method, usual(method), Text(length=L), SIZE)
    return flowlm.LanguageModel(experiment, network, tokenizer, L)


def words(count: int) -> Tokenizer:
    return Tokenizer.words([f"w{i}" for i in range(count)])


def prompt(n: int = 2, length: int = L, dtype: torch.dtype = torch.long) -> torch.Tensor:
    return torch.full((n, length), -1, dtype=dtype)


def x(n: int = 2, length: int = L, vocab: int = V, dtype: Any = torch.float32) -> torch.Tensor:
    return torch.zeros(n, length, vocab, dtype=dtype)


def at(*times: float) -> torch.Tensor:
    return torch.tensor(times)


NAN, INF = float("nan"), float("inf")
COUNTS: dict[str, Any] = {
    "a word": "3", "a fraction": 2.0, "None": None, "True": True, "a list": [2],
    "an array": np.array([2, 3]), "a tensor": torch.tensor([1, 2]), "no number": NAN,
    "a complex number": 1j, "negative": -1, "huge": 10**5000, "too many": 2**64,
}  # fmt: skip
BAD: dict[str, Callable[[Face], Any]] = {}
for _what, _value in COUNTS.items():
    BAD[f"sample: n {_what}"] = lambda f, v=_value: f.map.sample(v)
    BAD[f"sample: steps {_what}"] = lambda f, v=_value: f.flow.sample(1, v)
    BAD[f"sample: seed {_what}"] = lambda f, v=_value: f.left.sample(1, 1, v)
    BAD[f"generate: memory {_what}"] = lambda f, v=_value: f.map.generate(1, memory=v)
    BAD[f"film: first {_what}"] = lambda f, v=_value: f.map.film(1, 1, 0, v)
    BAD[f"denoise: memory {_what}"] = lambda f, v=_value: f.flow.denoise(x(), at(0, 1), memory=v)
PROMPTS: dict[str, Any] = {
    "an unknown word": "w1 w9", "a list": [[1] * L] * 2, "an array": np.zeros((2, L), np.int64),
    "of fractions": prompt().float(), "a mask": prompt() < 0, "complex": prompt().cfloat(),
    "of three texts for two": prompt(3), "of one text for two": prompt(1), "flat": prompt()[0],
    "too short": prompt(2, L - 1), "too long": prompt(2, L + 1), "without texts": prompt(0),
    "of three dimensions": prompt()[None], "past the vocabulary": prompt() + 1 + V,
    "below -1": prompt() - 1, "without numbers": prompt().to("meta"),
    "sparse": prompt().to_sparse(), "bytes past the vocabulary": prompt(dtype=torch.uint8),
}  # fmt: skip
for _what, _value in PROMPTS.items():
    BAD[f"sample: prompt {_what}"] = lambda f, v=_value: f.map.sample(2, prompt=v)
    BAD[f"film: prompt {_what}"] = lambda f, v=_value: f.left.film(2, 1, prompt=v)
POINTS: dict[str, Any] = {
    "None": None, "a list": [[[0.0] * V] * L] * 2, "an array": np.zeros((2, L, V), np.float32),
    "of whole numbers": x(dtype=torch.long), "of bools": x(dtype=torch.bool),
    "complex": x(dtype=torch.cfloat), "flat": x()[0], "of four dimensions": x()[None],
    "of another vocabulary": x(vocab=V + 1), "too short": x(length=L - 1),
    "too long": x(length=L + 1), "without texts": x(0), "without numbers": x().to("meta"),
    "sparse": x().to_sparse(), "no number": x() * NAN, "infinite": x() + INF,
    "too large for float32": x(dtype=torch.float64) + 1e300,
}  # fmt: skip
for _what, _value in POINTS.items():
    BAD[f"denoise: x {_what}"] = lambda f, v=_value: f.map.denoise(v, at(0, 0))
TIMES: dict[str, Any] = {
    "a number": 0.5, "a whole number": 1, "a list": [0.0, 0.5], "an array": np.zeros(2),
    "of one number": torch.tensor(0.5), "of another count": at(0, 0, 0), "bools": at(0, 1) > 0,
    "of another shape": torch.zeros(2, L + 1), "of a column": torch.zeros(2, 1), "past 1": at(0, 2),
    "below 0": at(0, -1), "no number": at(0, NAN), "without numbers": at(0, 0).to("meta"),
}  # fmt: skip
for _what, _value in TIMES.items():
    BAD[f"denoise: s {_what}"] = lambda f, v=_value: f.flow.denoise(x(), v)
    BAD[f"denoise: t {_what}"] = lambda f, v=_value: f.map.denoise(x(), at(0, 0), v)
PLACES: dict[str, Any] = {
    "None": None, "a number": 3, "bytes": b"x", "a list": ["x"], "a zero byte": "a\0b",
    "half a character": "\ud800", "empty": "", "a model": "model",
}  # fmt: skip
for _what, _value in PLACES.items():
    if _what != "a model":
        BAD[f"load: {_what}"] = lambda f, v=_value: flowlm.load(v)
        BAD[f"save: {_what}"] = lambda f, v=_value: f.map.save(v)
    if _what not in ("None", "a model"):
        BAD[f"load: tokenizer {_what}"] = lambda f, v=_value: flowlm.load("demo", tokenizer=v)
BAD |= {
    "sample: texts beyond the last": lambda f: f.map.sample(2**32 + 1),
    "film: texts beyond the last": lambda f: f.map.film(2, 1, 0, 2**32 - 1),
    "sample: too many steps": lambda f: f.map.sample(1, 10**9),
    "film: no steps": lambda f: f.map.film(1, 0),
    "film: a seed below zero": lambda f: f.map.film(1, 1, -1),
    "generate: no tokenizer": lambda f: f.flow.generate(1),
    "denoise: without a flow": lambda f: f.left.denoise(x(), at(0, 0)),
    "denoise: t for a flow": lambda f: f.flow.denoise(x(), at(0, 0), at(1, 1)),
    "denoise: t before s": lambda f: f.map.denoise(x(), at(0, 0.5), at(1, 0.4)),
    "denoise: t before s at one token": lambda f: f.map.denoise(
        x(), at(0, 0.5), torch.full((2, L), 0.5).index_fill(1, torch.tensor([3]), 0.4)
    ),
    "generate: a prompt of numbers": lambda f: f.map.generate(prompt=[1, 2]),
    "generate: a prompt of bytes": lambda f: f.map.generate(1, prompt=b"w1"),
    "generate: neither number nor prompt": lambda f: f.map.generate(),
    "generate: text behind a gap, from left to right": lambda f: f.left.sample(
        2, prompt=prompt().index_fill(1, torch.tensor([3]), 1)
    ),
    "generate: a word for the length": lambda f: f.map.generate(1, length="9"),
    "generate: a length of a fraction": lambda f: f.map.generate(1, length=9.5),
    "infill: a number": lambda f: f.map.infill(3),
    "infill: nothing": lambda f: f.map.infill(None),
    "infill: tokens": lambda f: f.map.infill(prompt()),
    "infill: no tokenizer": lambda f: f.flow.infill("w1 [..]"),
    "infill: a number of texts that is a word": lambda f: f.map.infill("w1 [..]", n="2"),
    "infill: text behind a gap, from left to right": lambda f: f.left.sample(
        prompt=f.map.template("[..] w1")
    ),
    "encode: bytes": lambda f: f.map.encode(b"w1"),
    "encode: an unknown word": lambda f: f.map.encode("zebra"),
    "decode: a list": lambda f: f.map.decode([[1]]),
    "decode: fractions": lambda f: f.map.decode(x()[0]),
    "decode: one row": lambda f: f.map.decode(f.map.sample(1)[0]),
    "decode: tokens that are not written": lambda f: f.map.decode(prompt()),
    "to: a device by number": lambda f: f.map.to(0),
    "to: a type as a word": lambda f: f.map.to(dtype="float32"),
    "from_network: another module": lambda f: flowlm.LanguageModel.from_network(
        f.map.experiment, torch.nn.Linear(2, 2)
    ),
    "recipe: a number": lambda f: flowlm.recipe(3),
    "recipe: options of a list": lambda f: flowlm.recipe("text-flow", ["train.steps"]),
    "recipe: options by number": lambda f: flowlm.recipe("text-flow", {3: 4}),
    "recipe: a word for a number": lambda f: flowlm.recipe("text-flow", {"train.steps": "3"}),
    "recipe: a number for a part": lambda f: flowlm.recipe("text-flow", {"train": 3}),
    "recipe: a teacher that is a model": lambda f: flowlm.recipe(
        "text-flow-map", {"method.teacher": f.flow}
    ),
    "fit: a directory that is a number": lambda f: flowlm.fit("demo-flow", 3),
    "fit: no text": lambda f: flowlm.fit("text-flow", f.place / "run", quiet=True),
    "save: onto a file": lambda f: f.map.save(__file__),
    "save: below a file": lambda f: f.map.save(Path(__file__) / "below"),
    "save: onto other things": lambda f: f.map.save(Path(__file__).parent),
    "save: a name of 5,000 letters": lambda f: f.map.save(f.place / ("x" * 5000)),
    "push: a path": lambda f: f.map.push(f.place),
    "push: a path as a word": lambda f: f.map.push(str(f.place)),
    "push: nothing": lambda f: f.map.push(None),
    "push: a name alone": lambda f: f.map.push("name"),
    "push: a report's file": lambda f: f.map.push("me/it", "report.json"),
    "push: a report without rows": lambda f: f.map.push("me/it", {"title": "x"}),
    "push: rows that are none": lambda f: f.map.push("me/it", {"rows": 3}),
    "push: words for figures": lambda f: f.map.push("me/it", {"rows": [{"steps": 1, "nll": "x"}]}),
    "push: a word for a switch": lambda f: f.map.push("me/it", None, "yes"),
    "push: a licence by its name": lambda f: f.map.push("me/it", license="Apache 2.0"),
    "load: a device by number": lambda f: flowlm.load("demo", 0),
    "load: no device": lambda f: flowlm.load("demo", None),
    "load: a device that is none": lambda f: flowlm.load("demo", "gpu"),
    "load: a type as a word": lambda f: flowlm.load("demo", dtype="float32"),
    "load: a type of whole numbers": lambda f: flowlm.load("demo", dtype=torch.int8),
    "load: a type of numpy": lambda f: flowlm.load("demo", dtype=np.float32),
    "load: types": lambda f: flowlm.load("demo", dtype=np.array([1, 2])),
    "load: a tokenizer itself": lambda f: flowlm.load("demo", tokenizer=words(V)),
    "load: a tokenizer of other words": lambda f: (
        words(V).save(f.place / "other.json"),
        flowlm.load("demo", tokenizer=f.place / "other.json"),
    ),
    "a model with a tokenizer of other words": lambda f: small(Flow(), words(V + 1)),
    "a plan with a word for a number": lambda f: Plan(steps="3"),
    "a plan with a fraction for a count": lambda f: Plan(batch=1.5),
    "a plan with an unknown device": lambda f: Plan(device="tpu"),
    "a plan of more than can be counted": lambda f: Plan(warmup=10**400),
    "a plan with a number for a switch": lambda f: Plan(compile=1),
    "a size of None": lambda f: Size(width=None),
    "a size of blocks without end": lambda f: Size(blocks=10**9),
    "a size with a cap that is a word": lambda f: Size(output_cap="none"),
    "an unknown endpoint": lambda f: Bridge("far"),
    "an unknown clock": lambda f: FlowMap(clock="sundial"),
    "a teacher that is a model": lambda f: FlowMap(teacher=f.flow),
    "a temperature that is a word": lambda f: Unmask(temperature="warm"),
    "a nucleus that is no number": lambda f: LeftToRight(top_p=NAN),
    "an experiment of words": lambda f: Experiment("x", "flow", Euler(), Text(), SIZE),
    "text of a fraction of a token": lambda f: Experiment(
        "x", Flow(), Euler(), Text(length=2.5), SIZE
    ),
    "a sampler of another kind": lambda f: Experiment("x", Flow(), Unmask(), Text(), SIZE),
    "a sampler that is a word": lambda f: f.map.sample(1, sampler="heun"),
    "a sampler of masks for a map": lambda f: f.map.generate(1, sampler=Unmask()),
    "text of a number": lambda f: Experiment("x", Flow(), Euler(), Text(path=3), SIZE),
}

GOOD: dict[str, Callable[[Face], bool]] = {
    "numpy's whole numbers": lambda f: torch.equal(
        f.map.sample(np.int64(3), np.uint8(2), np.uint32(5)), f.map.sample(3, 2, 5)
    ),
    "a seed of 64 bits": lambda f: f.map.sample(1, 1, 2**64 - 1).shape == (1, L),
    "prompts of every width": lambda f: all(
        torch.equal(f.map.sample(2, prompt=prompt(dtype=kind)), f.map.sample(2))
        for kind in (torch.int8, torch.int16, torch.int32, torch.int64)
    ),
    "a prompt that is given whole": lambda f: torch.equal(
        f.left.sample(2, prompt=prompt(dtype=torch.uint8) * 0 + 3), prompt() * 0 + 3
    ),
    "a film's last frame": lambda f: torch.equal(
        [*f.map.film(np.int32(2), 3, 1, np.int64(4))][-1].tokens(), f.map.sample(6, 3, 1)[4:]
    ),
    "the last text that there is": lambda f: len([*f.map.film(1, 1, 0, 2**32 - 1)]) == 1,
    "points in double": lambda f: torch.equal(
        f.map.denoise(x(dtype=torch.float64), at(0, 1)), f.map.denoise(x(), at(0, 1))
    ),
    "whole numbers as times": lambda f: torch.equal(
        f.flow.denoise(x(), torch.tensor([0, 1])), f.flow.denoise(x(), at(0, 1))
    ),
    "a jump of no length at the end": lambda f: bool(
        f.map.denoise(x(), at(1, 1), at(1, 1)).isfinite().all()
    ),
    "no memory at all": lambda f: torch.equal(f.map.sample(3, memory=0), f.map.sample(3)),
    "a path and a word": lambda f: (
        f.map.save(f.place / "a"),
        f.map.save(str(f.place / "b")),
        flowlm.load(f.place / "a").generate(2) == flowlm.load(str(f.place / "b")).generate(2),
    )[-1],
    "a device as torch has it": lambda f: flowlm.load(
        "demo", torch.device("cpu"), torch.bfloat16
    ).generate(1) != [""],
    "a tokenizer of the same words": lambda f: flowlm.load(
        f.place / "a", tokenizer=f.place / "a" / "tokenizer.json"
    ).generate(1) == f.map.generate(1),
    "a whole number for a fraction": lambda f: Plan(lr=1).lr == 1,
}  # fmt: skip


def outcome(call: Callable[[Face], Any], face: Face) -> list[str]:
    """The kind of the error and its words; "answer" and what came, if it is none."""
    try:
        return ["answer", repr(call(face))[:200]]
    except Refusal as refusal:
        return ["Refusal", str(refusal)]
    except BaseException as error:
        return [type(error).__name__, "".join(traceback.format_exception(error))[-600:]]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        face = Face(
            small(FlowMap(), words(V)), small(Flow()), small(Autoregressive()), Path(scratch)
        )
        said = {name: outcome(call, face) for name, call in (BAD | GOOD).items()}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
