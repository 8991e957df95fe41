"""What a run learns from is told apart: another text or teacher at the same place is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowlm import load
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.preparation import prepare
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.model.fingerprints import FILE, read_fingerprints

LETTERS = Tokenizer.characters(["abcde "])


def files(directory: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in directory.rglob("*") if f.is_file()}


@pytest.fixture
def prepared(text: Path, tmp_path: Path) -> Path:
    prepare(text_corpus(str(text), "line", 0.05), tmp_path / "tokens", LETTERS)
    return tmp_path / "tokens"


def reading(experiment: Experiment, prepared: Path) -> Experiment:
    return replace(experiment, data=Text(path=str(prepared), length=16))


def test_other_tokens_of_the_same_tokenizer_are_noticed(
    prepared: Path, text: Path, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    short, whole = (reading(experiments("masked", steps=s), prepared) for s in (4, 6))
    run(short, tmp_path / "run")
    before = files(tmp_path / "run")
    earlier = shutil.move(prepared, tmp_path / "earlier")
    other = tmp_path / "other.txt"
    other.write_text(text.read_text()[::-1].strip() + "\n")
    prepare(text_corpus(str(other), "line", 0.05), prepared, LETTERS)
    with pytest.raises(Refusal, match=rf"{prepared} is not the text .*its tokens have changed"):
        run(whole, tmp_path / "run", resume=True)
    assert files(tmp_path / "run") == before
    # Put back, or the same text prepared anew: the run goes on.
    shutil.rmtree(prepared)
    prepare(text_corpus(str(text), "line", 0.05), prepared, LETTERS)
    run(whole, tmp_path / "run", resume=True)
    assert load(tmp_path / "run").fingerprints == read_fingerprints(tmp_path / "run")
    assert earlier.exists()


def test_a_text_that_changed_is_noticed_when_its_tokens_are_gone(
    text: Path, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(text, tmp_path / "copy.txt"))
    experiment = experiments("masked", steps=4)
    experiment = replace(experiment, data=Text(path=str(copy), length=16))
    run(experiment, tmp_path / "run")
    copy.write_text(text.read_text()[::-1].strip() + "\n")
    longer = replace(experiment, train=replace(experiment.train, steps=6))
    shutil.rmtree(tmp_path / "run" / "tokens")
    with pytest.raises(Refusal, match=r"copy\.txt is not the text"):
        run(longer, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "tokens").exists()


def test_another_teacher_at_the_same_place_is_noticed(
    teacher: Path, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    learning = experiments("flow map with a teacher", steps=4)
    learning = replace(learning, method=replace(learning.method, teacher=str(place)))
    longer = replace(learning, train=replace(learning.train, steps=6))
    run(learning, tmp_path / "map")
    before = files(tmp_path / "map")
    shutil.rmtree(place)
    run(experiments("flow in projected space", seed=7), place)
    with pytest.raises(Refusal, match=rf"{place} is not the one .*its weights have changed"):
        run(longer, tmp_path / "map", resume=True)
    assert files(tmp_path / "map") == before
    # The weights tell teachers apart, not the place.
    moved = Path(shutil.copytree(teacher, tmp_path / "moved"))
    found = replace(longer, method=replace(longer.method, teacher=str(moved)))
    run(found, tmp_path / "map", resume=True)


def test_an_export_says_what_it_has_learnt_from(teacher: Path, tmp_path: Path) -> None:
    load(teacher).save(tmp_path / "export")
    known = read_fingerprints(tmp_path / "export")
    assert known is not None
    assert known == read_fingerprints(teacher)
    assert known.teacher is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"data": 1, "teacher": null}', '{"data": "a"}'])
def test_damaged_fingerprints_are_refused(damage: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(Refusal, match="is damaged"):
        read_fingerprints(tmp_path)


def test_a_run_without_fingerprints_gets_them_when_it_goes_on(
    experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    run(experiments("masked", steps=4), tmp_path / "run")
    known = json.loads((tmp_path / "run" / FILE).read_text())
    (tmp_path / "run" / FILE).unlink()
    run(experiments("masked", steps=6), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / FILE).read_text()) == known
