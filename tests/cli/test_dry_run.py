"""`flowlm train RECIPE --dry-run`: the published models, in seconds, without their memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowlm.experiment import Text
from flowlm.recipes import RECIPES
from flowlm.run.vocabulary import vocabulary


def test_the_vocabulary_of_prepared_text_is_its_own(
    flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "prepared"
    assert flowlm("prepare", corpus, "--out", out).status == 0
    data = Text(path=str(out), vocab=5000)
    assert vocabulary(replace(RECIPES["text-masked"](), data=data)) == (18, False)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, (18, False)),
        ({"tokenizer": "characters"}, (18, False)),
        ({"tokenizer": "gpt2"}, (50_257, False)),
        ({"tokenizer": "bert-base-uncased"}, (30_522, False)),
        ({"tokenizer": "bpe", "vocab": 700}, (700, False)),
        ({"tokenizer": "owner/name", "vocab": 700}, (700, True)),
        ({"path": None, "vocab": 700}, (700, True)),
        ({"path": None, "tokenizer": "{run}/tokenizer.json"}, (18, False)),
    ],
)
def test_a_vocabulary_is_counted_where_it_can_be(
    data: dict[str, Any], wanted: tuple[int, bool], corpus: Path, runs: Path
) -> None:
    given = {k: v.format(run=runs / "flow") if k == "tokenizer" else v for k, v in data.items()}
    text = Text(**{"path": str(corpus), **given})
    assert vocabulary(replace(RECIPES["text-masked"](), data=text)) == wanted


def test_a_long_text_is_not_read_for_a_guess(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlm.run.vocabulary.COUNTED", 10)
    data = Text(path=str(corpus), vocab=700)
    assert vocabulary(replace(RECIPES["text-masked"](), data=data)) == (700, True)


def test_a_flow_map_has_its_teachers_vocabulary(flowlm: Callable, runs: Path) -> None:
    answer = flowlm("train", "text-flow-map", "--dry-run", "--method.teacher", runs / "flow")
    assert re.search(r"vocabulary +18\n", answer.out)


def test_a_dry_run_says_whether_the_run_fits(flowlm: Callable, corpus: Path) -> None:
    words = ["train", "text-masked", "--dry-run", "--data.path", corpus, "--accelerator", "rtx4090"]
    small = flowlm(*words)
    assert "rtx4090 has 22.4 GiB: it fits" in small.out
    assert re.search(r"time +[\d.]+ minutes at 66 TFLOP/s", small.out)
    large = flowlm(*words, "--train.batch", 40_000)
    assert "rtx4090 has 22.4 GiB: it does not fit" in large.out


def test_a_dry_run_of_a_text_that_is_not_there_is_refused(
    flowlm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flowlm("train", "text-flow", "--dry-run", "--data.path", "nowhere.txt").refusal("nowhere.txt")
    flowlm("train", "lm1b-masked", "--dry-run", "--data.path", "nowhere").refusal("nowhere")


PUBLISHED = {
    "lm1b-flow": 139_293_018,
    "lm1b-flow-map": 139_342_426,
    "owt-flow": 169_627_250,
    "owt-flow-map": 169_676_658,
}
"""Of the released models, 32 rotary frequencies of each included."""


@pytest.mark.parametrize(
    "recipe",
    [
        name if name == "owt-flow" else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_dry_runs_have_the_published_counts_in_seconds(recipe: str, flowlm: Callable) -> None:
    began = time.perf_counter()
    answer = flowlm("train", recipe, "--dry-run", "--devices", 64)
    assert time.perf_counter() - began < 60
    assert (answer.status, answer.err) == (0, "")
    said = {line[2:14].strip(): line[14:] for line in answer.out.splitlines()}
    assert said["parameters"] == f"{PUBLISHED[recipe] - 32:,}"
    plan = RECIPES[recipe]().train
    assert said["tokens"].startswith(
        f"{plan.steps * plan.batch * RECIPES[recipe]().data.length:,} "
    )


def test_a_dry_run_allocates_nothing() -> None:
    """A network of a billion parameters takes 4 GB, and its state four times that."""
    code = (
        "import torch\n"
        "from flowlm.cli import main\n"
        "from flowlm.machine.hardware import memory_held\n"
        "cpu = torch.device('cpu')\n"
        "before = memory_held(cpu)\n"
        "words = '--dry-run --size.width 4096 --size.heads 32 --size.blocks 3'.split()\n"
        "assert main(['train', 'lm1b-masked', *words, '--devices', '64']) == 0\n"
        "print(memory_held(cpu) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, grown = done.stdout.splitlines()
    count = re.findall(r"parameters +([\d,]+)", "\n".join(lines))[0]
    assert int(count.replace(",", "")) > 850e6
    assert int(grown) < 2**29


def test_a_map_of_a_corpus_needs_its_teacher(
    flowlm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flowlm("train", "text8-flow-map").refusal("runs/text8-flow", "flowlm train text8-flow")
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_is_there_says_how_large_the_map_is(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "flow", tmp_path / "runs" / "text8-flow")
    answers = [
        flowlm("train", "text8-flow-map", "--dry-run", "--train.batch", 2, *words)
        for words in ([], ["--method.teacher", runs / "flow"])
    ]
    assert answers[0] == answers[1]
    # One block of width 16 and the second time embedding: far from two of width 768.
    assert 10_000 < parameters(answers[0]) < 400_000
    little = ["--train.batch", 2, "--method.teacher", "None", "--size.blocks", 2]
    alone = flowlm("train", "text8-flow-map", "--dry-run", *little)
    assert parameters(alone) > 14_000_000
    assert "teacher" not in alone.out


def parameters(answer: Any) -> int:
    return int(re.findall(r"parameters +([\d,]+)", answer.out)[0].replace(",", ""))
