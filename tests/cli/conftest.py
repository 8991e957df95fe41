"""The command line in-process, a small corpus, and one tiny finished run of every method."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import SHORT, SMALL
from flowlm.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int
    out: str
    err: str

    def refusal(self, *named: object) -> str:
        """The sentence of a command that was refused: one line, one sentence, status 2."""
        assert "Traceback" not in self.err
        assert self.status == 2, self.out + self.err
        assert self.err.endswith("\n")
        sentence = self.err[:-1]
        assert sentence.startswith("flowlm: ")
        assert "\n" not in sentence, f"more than one line: {sentence}"
        assert sentence.endswith("."), sentence
        assert not re.search(r"[.!?] +[A-Z]", sentence), f"more than one sentence: {sentence}"
        for name in named:
            assert str(name) in sentence, f"{name} is not in: {sentence}"
        return sentence


@pytest.fixture
def flowlm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `flowlm WORDS...` in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def train(flowlm: Callable[..., Answer], corpus: Path) -> Callable[..., Answer]:
    """Run `flowlm train RECIPE` on the corpus, tiny; later options win over these."""

    def run(recipe: str, out: Path, *others: object) -> Answer:
        text = ["--data.path", corpus, "--data.length", 16]
        return flowlm("train", recipe, *SMALL, *SHORT, *text, "--out", out, *others)

    return run


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred short lines, a document each."""
    rng = random.Random(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "under", "by", "and"]
    lines = [" ".join(rng.choices(words, k=8)) for _ in range(200)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A directory with finished runs: flow, flow-map, masked, autoregressive. Not to be changed."""
    home = tmp_path_factory.mktemp("runs")
    text = ["--data.path", str(corpus), "--data.length", "16"]
    for name in ("flow", "masked", "autoregressive"):
        assert (
            main(["train", f"text-{name}", *SMALL, *SHORT, *text, "--out", str(home / name)]) == 0
        )
    teacher = ["--method.teacher", str(home / "flow")]
    assert main(["train", "text-flow-map", *SHORT, *teacher, "--out", str(home / "flow-map")]) == 0
    return home


@pytest.fixture
def flow_run(runs: Path, tmp_path: Path) -> Path:
    """A copy of the flow's run, to be damaged."""
    return Path(shutil.copytree(runs / "flow", tmp_path / "flow"))
