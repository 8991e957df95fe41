"""Bad inputs, made from the options and signatures themselves.

    python -m tests.bad_inputs

tries each, in a scratch directory, and prints those that do not end as they should (one sentence,
status 2 or a Refusal, nothing left behind), how many there were, and the slowest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flowlm.cli import main, options
from flowlm.cli.preparing import Prepare
from flowlm.errors import Refusal
from flowlm.recipes import RECIPES

TEXT = "the cat sat on the mat and the dog ran by\n" * 100
SMALL = (
    "--size.blocks 1 --size.width 16 --size.heads 2 --size.condition 8 --data.length 16 "
    "--train.batch 4 --train.steps 1 --data.path text.txt --out out"
)
SOUND = {
    # Commands that would work, each in a directory with a text; one option more makes them bad.
    "demo": "demo --out out",
    "prepare": "prepare text.txt --out out",
    "sample": "sample demo --num 1",
    "evaluate": "evaluate demo --num 2 --steps 1 --out out",
    "convert": "convert demo out",
    "export": "export demo --page out",
    "publish": "publish demo owner/name",
    "text-flow": f"train text-flow {SMALL}",
    "text-flow-map": f"train text-flow-map --method.teacher None {SMALL}",
    "text-masked": f"train text-masked {SMALL}",
    "text-autoregressive": f"train text-autoregressive {SMALL}",
}
KINDS = {
    "demo": options.Demo,
    "prepare": Prepare,
    "sample": options.Sample,
    "evaluate": options.Evaluate,
    "convert": options.Convert,
    "export": options.Export,
    "publish": options.Publish,
}

HUGE = "9" * 23
BAD = {int: ("many", "", "1.5", "-1", HUGE), float: ("many", "", "nan", "inf", "-1")}
LONG = "a" * 5000
SENTENCE = (
    "these old sailors often steer that new boat near their harbour and they never wait for their "
    "rope"
)
READ = (LONG, "missing", "", "text.txt/below", "loop", "empty", "null\0byte", "noise.bin")
"""Places that nothing can be read from."""

WRITTEN = (LONG, "text.txt", "text.txt/below", "loop", "loop/below", "null\0byte", "/proc/out")
"""Places that cannot be written."""

READING = {"run", "judge", "source", "path", "tokenizer", "report", "teacher"}
ANYWHERE = {"repository", "subset", "column"}  # names, not places

PATIENCE = 20
"""Seconds after which an input that has not ended is a fault."""

ENVIRONMENTS = {
    "no UTF-8": {"PYTHONIOENCODING": "ascii"},
    "a code page": {"PYTHONIOENCODING": "cp1252"},
    "a rank without a world": {"RANK": "1"},
    "a stale world": {"WORLD_SIZE": "2", "RANK": "0"},
    "a world of words": {"WORLD_SIZE": "two"},
    "no home": {"HOME": "/nonexistent"},
    "threads of words": {"OMP_NUM_THREADS": "many"},
    "a narrow terminal": {"COLUMNS": "1"},
    "a dumb terminal": {"TERM": "dumb", "FORCE_COLOR": "1"},
}


@dataclasses.dataclass
class Case:
    """A bad input, and what tries it: it returns the sentence that it ended with."""

    name: str
    attempt: Callable[[], str]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What was wrong with the way in which an input ended."""

    name: str
    what: str


def commands() -> Iterator[Case]:
    """Every option of every command with values that its type does not have, and without one."""
    seen: set[str] = set()
    for command, line in SOUND.items():
        sound = line.split()
        for option, kind in _options(command):
            if option in seen and command not in KINDS:
                continue  # recipes share most of theirs
            seen.add(option)
            yield _case([*sound, option.replace("-", "-x", 2).replace("-x-x", "--x", 1), "1"])
            if kind is bool:
                yield _case([*sound, option, "maybe"])
                continue
            yield _case([*sound, option])
            for value in _bad(option.rpartition(".")[2].strip("-"), kind):
                yield _case([*sound, option, value])
    for place in READ:
        for command in (
            "sample", "evaluate", "convert", "export", "publish", "train --resume", "prepare",
        ):  # fmt: skip
            others: dict[str, list[str]] = {
                "convert": ["new"], "publish": ["a/b"], "prepare": ["--out", "new"],
                "export": ["--page", "new"],
            }  # fmt: skip
            yield _case([*command.split(), place, *others.get(command, [])])
    yield _case(["convert", "demo", "text.txt"])
    for option in ("--page", "--onnx"):
        yield from (_case(["export", "demo", option, place]) for place in WRITTEN)
    for words in ("", " ", "trian", "train", "train --resume", "train nope", "sample", "--nope"):
        yield _case([*words.split(" ")] if words else [""])


def _options(command: str) -> Iterator[tuple[str, Any]]:
    """Names and types of a command's options; of a recipe's, those of its parts."""
    if command in KINDS:
        kind = KINDS[command]
        for name, hint in typing.get_type_hints(kind).items():
            required = kind.__dataclass_fields__[name].default is dataclasses.MISSING
            if not required:
                yield f"--{name.replace('_', '-')}", hint
        return
    for part in ("method", "data", "size", "train"):
        value = getattr(RECIPES[command](), part)
        for name, hint in typing.get_type_hints(type(value)).items():
            yield f"--{part}.{name.replace('_', '-')}", hint


def _bad(name: str, hint: Any) -> Sequence[str]:
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [c for c in choices if c is not types.NoneType]
    if typing.get_origin(kinds[0]) is tuple:
        kinds = [typing.get_args(kinds[0])[0]]
    if typing.get_origin(kinds[0]) is Literal:
        return "sundial", ""
    if kinds[0] in BAD:
        return BAD[kinds[0]]
    if name in ANYWHERE:
        return ()
    if name == "license":
        return "Apache-2.0", "", "two words", "mit\n- more", LONG
    return READ if name in READING else WRITTEN if kinds[0] is Path else ("nowhere/at/all",)


def _case(words: list[str]) -> Case:
    def attempt() -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
        assert status == 2, f"status {status}: {(out.getvalue() + err.getvalue())[-300:]!r}"
        said = err.getvalue()
        lines = [line for line in said.splitlines() if line.startswith("flowlm: ")]
        assert lines, f"said {said!r}"
        return lines[-1].removeprefix("flowlm: ")

    shown = " ".join(word if len(word) < 50 else f"{word[:9]}..." for word in words)
    return Case(shown, attempt)


def surroundings() -> Iterator[Case]:
    """A bad word in hostile surroundings: other environments, and output that goes nowhere."""
    for name, environment in ENVIRONMENTS.items():
        yield Case(name, partial(_elsewhere, ["sample", "nöpe"], environment))
    for words in (["--help"], ["recipes"], ["sample", "--help"]):
        yield Case(f"{words} > /dev/full", partial(_elsewhere, words, {}, "/dev/full"))


def _elsewhere(words: list[str], environment: dict[str, str], out: str = os.devnull) -> str:
    with open(out, "w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "flowlm", *words], env=os.environ | environment,
            stdout=stream, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 2, f"status {done.returncode}: {said!r}"
    assert said.count("\n") == 1, said
    return said.removeprefix("flowlm: ").rstrip("\n")


def calls() -> Iterator[Case]:
    """Every argument of the Python face with values of other types."""
    import torch

    import flowlm

    model = flowlm.load("demo")
    x, s = _point(model)
    sound: dict[str, dict[str, Any]] = {
        "generate": {"n": 1},
        "sample": {"n": 1},
        "film": {"n": 1, "steps": 1},
        "denoise": {"x": x, "s": s},
        "infill": {"template": "these [..]", "steps": 1},
        "template": {"template": "these [..]"},
        "vary": {"text": SENTENCE, "strength": 0.5, "steps": 1},
        "between": {"first": 0, "second": 1, "count": 2},
        "noise_of": {"text": SENTENCE, "steps": 1},
        "score": {"texts": [SENTENCE], "draws": 4},
        "encode": {"text": SENTENCE},
        "decode": {"tokens": torch.zeros(1, 3).long()},
        "guided": {"dropout": 0.1},
        "rewarded": {"reward": len},
        "save": {"directory": "out"},
        "push": {"hub_id": "owner/name"},
    }
    for name, arguments in sound.items():
        method = getattr(model, name)
        for parameter in inspect.signature(method).parameters:
            for value in _values(name, parameter):
                yield _call(name, method, arguments | {parameter: value})
    for parameter in inspect.signature(flowlm.load).parameters:
        for value in _values("load", parameter):
            yield _call("load", flowlm.load, {"name": "demo"} | {parameter: value})


def _point(model: Any) -> tuple[Any, Any]:
    import torch

    return torch.zeros(2, model.length, model.network.vocab), torch.full((2,), 0.5)


def _values(method: str, parameter: str) -> list[Any]:
    import torch

    from flowlm.sampling import LeftToRight, Unmask

    numbers = ["1", 1.5, None, True, -1, 10**30, [1], torch.zeros(2), float("nan")]
    tensors = ["x", 1.5, [0.5], torch.zeros(()), torch.zeros(2, 3), torch.full((2,), torch.nan)]
    match parameter:
        case "n" if method in ("infill", "template"):  # None: as many as there are templates
            return [*(value for value in numbers if value is not None), 0]
        case "n" | "steps" | "count" | "draws" | "candidates":
            return [*numbers, 0]
        case "length":
            return [*(value for value in numbers if value is not None), 0]
        case "seed" | "memory":
            return numbers
        case "first" if method != "between":
            return numbers
        case "prompt":
            rows = torch.zeros(1, 3).long(), torch.zeros(1, 16), -torch.ones(16)
            return ["the cat", 3, [1, 2], *rows]
        case "text" if method == "encode":
            return [None, 3, ["these"], "these xyzzy", "\0"]
        case "text" | "first" | "second":
            return [None, 1.5, ["these"], "", "these old", "xyzzy", torch.zeros(1, 3).long()]
        case "texts":
            return [None, 3, SENTENCE, [], [3], ["these old"], [""], ["xyzzy " * 18]]
        case "template":
            return [None, 3, [], [3], "xyzzy [..]", "these [..99]", "these [..]" * 19]
        case "strength":
            return ["much", None, True, -0.1, 1.5, float("nan")]
        case "tokens":
            return [None, "these", 3, [[0, 1]], torch.zeros(1, 3), torch.full((1, 3), 61)]
        case "weight":
            return ["much", True, float("nan"), float("inf")]
        case "dropout":
            return ["much", True, -1.0, 1.0, float("nan")]
        case "by" | "reward":
            return ["demo", 3]
        case "x":
            return [*tensors, torch.zeros(2, 16, 61).long(), torch.full((2, 16, 61), torch.nan)]
        case "s":
            return [None, *tensors, torch.full((2,), 1.5)]
        case "t":
            return [*tensors, torch.full((2,), 0.2)]
        case "sampler":
            return ["euler", 3, Unmask(), Unmask, LeftToRight()]
        case "directory":
            return [None, 3, "text.txt", "text.txt/below", "loop", LONG, "null\0byte"]
        case "hub_id":
            return [None, 3, "", "name", "a/b/c", "a/b@main", "."]
        case "report":
            return ["report.json", 3, [1], {"title": 1}]
        case "private":
            return ["yes", 1]
        case "license":
            return [3, "", "Apache-2.0", "two words", "a\nb", ["mit"]]
        case "name":
            return [None, 3, 1.5, b"demo", ["demo"], *READ]
        case "device":
            return [None, 3, "gpu", "cuda:99", "cuda:-1", ""]
        case "dtype":
            return ["float32", torch.float16, torch.int64, float]
        case "tokenizer":
            return [3, "text.txt", "missing", "", LONG, "loop", ["gpt2"]]
    raise AssertionError(f"{method}({parameter}) has no bad values: add some")


def _call(name: str, method: Callable[..., Any], arguments: dict[str, Any]) -> Case:
    def attempt() -> str:
        try:
            made = method(**arguments)
        except Refusal as refusal:
            return str(refusal)
        raise AssertionError(f"gave a {type(made).__name__}")

    shown = ", ".join(f"{key}={str(value)[:30]!r}" for key, value in arguments.items())
    return Case(f"{name}({shown})", attempt)


def tried(case: Case) -> Iterator[Fault]:
    """Try a case; what is wrong with how it ends."""
    before = sorted(Path().rglob("*"))
    signal.signal(signal.SIGALRM, _silent)
    signal.alarm(PATIENCE)
    try:
        sentence = case.attempt()
    except AssertionError as error:
        yield Fault(case.name, str(error))
        return
    except BaseException:
        yield Fault(case.name, traceback.format_exc(limit=-2))
        return
    finally:
        signal.alarm(0)
    if not sentence.endswith(".") or re.search(r"[.!?] +[A-Z]|\n", sentence):
        yield Fault(case.name, f"is not one sentence: {sentence!r}")
    if left := sorted(set(Path().rglob("*")) - set(before)):
        yield Fault(case.name, f"left {', '.join(map(str, left[:4]))}")


def _silent(number: int, frame: object) -> None:
    raise AssertionError(f"said nothing for {PATIENCE} seconds")


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        Path("text.txt").write_text(TEXT)
        Path("noise.bin").write_bytes(bytes(range(256)) * 16)
        Path("empty").mkdir()
        Path("loop").symlink_to("loop")
        try:
            yield
        finally:
            os.chdir(here)


def report() -> dict[str, Any]:
    """Try everything; the faults, the number of inputs and the slowest."""
    faults: list[Fault] = []
    seconds: dict[str, float] = {}
    with _scratch():
        for kind in (commands, surroundings, calls):
            for case in kind():
                began = time.perf_counter()
                faults += tried(case)
                seconds[case.name] = time.perf_counter() - began
    slowest = max(seconds, key=seconds.__getitem__)
    return {
        "inputs": len(seconds),
        "faults": [dataclasses.asdict(fault) for fault in faults],
        "slowest": [slowest, round(seconds[slowest], 2)],
        "slow": sorted((round(v, 2), k) for k, v in seconds.items() if v > 1),
    }


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    told = report()
    if "--json" in sys.argv:
        print(json.dumps(told))
    else:
        for fault in told["faults"]:
            print(f"{fault['name']}\n    {fault['what']}")
        for slow, name in told["slow"]:
            print(f"{slow} s: {name}")
        name, seconds = told["slowest"]
        counted = f"{told['inputs']} bad inputs, {len(told['faults'])} faults"
        print(f"{counted}; the slowest took {seconds} s: {name}")
