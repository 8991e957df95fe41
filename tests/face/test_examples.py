"""The examples in docstrings and in examples/: they say what comes, and it comes."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

import flowlm
from flowlm.model.language_model import LanguageModel

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CALLS = {
    f"{where}.{name}": call
    for where, of in {"flowlm": flowlm, "LanguageModel": LanguageModel}.items()
    for name, call in vars(of).items()
    if ">>>" in (call.__doc__ or "") and not name.startswith("_")
}


@pytest.mark.parametrize("name", CALLS)
def test_an_example_is_true(name: str) -> None:
    test = doctest.DocTestParser().get_doctest(
        CALLS[name].__doc__, {"flowlm": flowlm}, name, None, None
    )
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert said == []


def test_what_people_call_has_examples() -> None:
    wanted = {"generate", "infill", "template", "sample", "film", "denoise", "encode", "score"}
    assert {f"LanguageModel.{name}" for name in wanted} | {"flowlm.load", "flowlm.recipe"} <= {
        *CALLS
    }


def test_the_package_lists_what_it_has() -> None:
    assert {"load", "fit", "recipe", "recipes", "LanguageModel", "Refusal"} <= set(dir(flowlm))
    for name in dir(flowlm):
        assert vars(flowlm).get(name, flowlm.__getattr__) is not None
        exec(f"import flowlm; flowlm.{name}")


# --- scripts that open as notebooks ---------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples"


def cells(name: str) -> list[tuple[str, str]]:
    """Heading and content of every cell of a script in percent format."""
    parts = re.split(r"^(# %%.*)\n", (EXAMPLES / name).read_text("utf-8"), flags=re.MULTILINE)
    assert parts[0] == "", "something stands before the first cell"
    return list(zip(parts[1::2], parts[2::2]))


def run(name: str, changed: dict[str, str]) -> str:
    """What a script prints, cell after cell, with some of its words changed."""
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for _, content in cells(name):
            for old, new in changed.items():
                content = content.replace(old, new)
            exec(compile(content, name, "exec"), names)
    return said.getvalue()


@pytest.mark.parametrize("name", ["tour.py", "train_your_own.py"])
def test_a_script_opens_as_cells_of_text_and_of_code(name: str) -> None:
    kinds = [heading for heading, _ in cells(name)]
    assert kinds[0] == "# %% [markdown]"
    assert set(kinds) == {"# %%", "# %% [markdown]"}
    for heading, content in cells(name):
        prose = all(line.startswith("#") for line in content.splitlines() if line)
        assert prose == (heading == "# %% [markdown]")
    guide = (EXAMPLES.parent / "docs" / "index.md").read_text("utf-8")
    assert f"examples/{name}" in guide


def test_the_tour_shows_what_it_says() -> None:
    said = run("tour.py", {})
    assert len(re.findall(r"^tau 0\.\d\d  least sure word", said, re.MULTILINE)) == 4
    assert len(re.findall(r"^these old sailors ", said, re.MULTILINE)) == 2
    assert len(re.findall(r"^these .* behind their .* rope$", said, re.MULTILINE)) >= 2
    own, other = map(float, re.findall(r"^(\S+) ± \S+ nats", said, re.MULTILINE))
    assert own < other
    kept = [int(count) for count in re.findall(r"(\d+) of 18 words kept", said)]
    assert len(kept) == 3
    assert kept[0] >= kept[-1]


@pytest.mark.slow
def test_a_text_of_your_own_is_learnt_and_distilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = run("train_your_own.py", {'"train.steps": 200': '"train.steps": 4'})
    assert re.search(r"FLM: .* 4 steps of training", said)
    assert said.splitlines()[-4:] == [
        "experiment.json", "fingerprints.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    (place,) = tmp_path.glob("flowlm-*")
    assert flowlm.load(place / "export").experiment.method.label == "FMLM"
