"""`flowlm evaluate`: checked before the first text, rows as they come, no report lost."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import flowlm as library
from flowlm.cli import show
from flowlm.core import Tokens
from flowlm.data.language import demo_language
from flowlm.data.tokenizer import Tokenizer
from flowlm.evaluate import reports
from flowlm.methods.masked import Masked
from flowlm.model.card import model_card
from flowlm.model.fingerprints import FILE
from flowlm.model.language_model import LanguageModel
from flowlm.model.writing import Writer
from flowlm.recipes import RECIPES
from flowlm.run import assess
from flowlm.sampling import Euler, Unmask

FEW = ["--num", 4, "--steps", 1]


def files(place: Path) -> dict[str, bytes]:
    return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()}


@pytest.fixture
def export(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """An export of a finished run in the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(method: str) -> Path:
        library.load(runs / method).save(method)
        return Path(method)

    return make


# --- before the first text ----------------------------------------------------------------------


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text may be written."""

    def film(*_: object, **__: object) -> Iterator[torch.Tensor]:
        raise AssertionError("a text was written before everything was checked")

    monkeypatch.setattr(Writer, "frames", film)


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("case", ["a file", "below a file", "a long name"])
def test_a_place_for_the_report_is_tried_first(
    case: str, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    out = {
        "a file": file, "below a file": file / "x", "a long name": tmp_path / ("x" * 300),
    }[case]  # fmt: skip
    flowlm("evaluate", runs / "flow", *FEW, "--out", out).refusal("--out")
    assert files(tmp_path) == {"file": b"precious"}


@pytest.mark.usefixtures("unwritten")
def test_a_judge_is_checked_first(flowlm: Callable, flow_run: Path, runs: Path) -> None:
    before = files(flow_run)
    flowlm("evaluate", flow_run, *FEW, "--judge", runs / "masked").refusal("autoregressive")
    assert files(flow_run) == before


@pytest.mark.usefixtures("unwritten")
def test_a_judge_of_the_demos_language_is_refused(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    _, words = demo_language()
    small = library.load(runs / "flow").experiment.size
    experiment = replace(RECIPES["demo-flow"](), size=small)
    network = experiment.method.network(small, len(words), 18)
    out = tmp_path / "export"
    LanguageModel(experiment, network, Tokenizer.words(words), 18).save(out)
    before = files(out)
    flowlm("evaluate", out, *FEW, "--judge", runs / "autoregressive").refusal("--judge", out)
    assert files(tmp_path) == {f"export/{name}": content for name, content in before.items()}


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("prepared", [True, False])
def test_a_foreign_tokenizer_is_found_first(
    prepared: bool, flowlm: Callable, train: Callable, runs: Path, tmp_path: Path
) -> None:
    """One of as many tokens fits the model, and is not what its text was made with."""
    run = shutil.copytree(runs / "masked", tmp_path / "run")
    own = Tokenizer.load(run / "tokenizer.json")
    vocab = own.vocab
    Tokenizer.words([f"word{i}" for i in range(vocab)]).save(tmp_path / "other.json")
    if prepared:
        # The run reads the directory that `flowlm prepare` made.
        stated = json.loads((run / "experiment.json").read_text())
        (run / "tokens").rename(tmp_path / "tokens")
        stated["data"]["path"] = str(tmp_path / "tokens")
        (run / "experiment.json").write_text(json.dumps(stated))
    before = files(tmp_path)
    answer = flowlm("evaluate", run, *FEW, "--tokenizer", tmp_path / "other.json")
    answer.refusal("--tokenizer", "tokens")
    Tokenizer.characters(["ab"]).save(tmp_path / "small.json")
    flowlm("evaluate", run, *FEW, "--tokenizer", tmp_path / "small.json").refusal("small.json")
    (tmp_path / "small.json").unlink()
    assert files(tmp_path) == before


@pytest.mark.parametrize("of", ["run", "export"])
def test_held_out_text_is_of_what_the_model_has_learnt_from(
    of: str,
    flowlm: Callable,
    train: Callable,
    corpus: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Another text with the same letters stands where the model's text stood."""
    text = Path(shutil.copy(corpus, tmp_path / "text.txt"))
    assert train("text-masked", tmp_path / "run", "--data.path", text).status == 0
    library.load(tmp_path / "run").save(tmp_path / "export")
    shutil.rmtree(tmp_path / "run" / "tokens")
    text.write_text(text.read_text()[::-1].strip() + "\n")
    before = files(tmp_path)
    request.getfixturevalue("unwritten")
    flowlm("evaluate", tmp_path / of, *FEW, "--out", tmp_path / "told").refusal(
        text, "its tokens have changed"
    )
    assert files(tmp_path) == before


def test_text_that_nobody_can_vouch_for_is_left_out(
    flowlm: Callable, train: Callable, tmp_path: Path
) -> None:
    assert train("text-masked", tmp_path / "run").status == 0
    for known in (True, False):
        if not known:
            (tmp_path / "run" / FILE).unlink()
        answer = flowlm("evaluate", tmp_path / "run", *FEW)
        assert answer.status == 0
        assert ("does not say which text" in answer.out) == (not known)
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert bool(report["held_out"]) == known


@pytest.mark.usefixtures("unwritten")
def test_one_report_is_written_at_a_time(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with reports.writing(out):
        flowlm("evaluate", runs / "flow", *FEW, "--out", out).refusal(out, "process")
    assert not out.exists(), "nothing is left of an evaluation that did not begin"


# --- what is there already ------------------------------------------------------------------------


def test_a_report_of_other_settings_is_kept(flowlm: Callable, flow_run: Path) -> None:
    assert flowlm("evaluate", flow_run, "--num", 6, "--steps", 1, 4).status == 0
    kept: list[bytes] = []
    for n, words in enumerate(
        (
            ["--num", 6, "--steps", 1],
            ["--num", 5, "--steps", 1],
            ["--num", 5, "--steps", 1, "--seed", 1],
        ),
        1,
    ):
        kept.append((flow_run / "report.json").read_bytes())
        page = (flow_run / "report.html").read_bytes()
        answer = flowlm("evaluate", flow_run, *words)
        assert answer.status == 0
        assert f"kept as report-{n}.json and report-{n}.html" in answer.err
        assert answer.err.count("\n") == 1
        assert (flow_run / f"report-{n}.html").read_bytes() == page
        # The same once more: that one is replaced.
        again = flowlm("evaluate", flow_run, *words)
        assert (again.status, again.err) == (0, "")
    assert [(flow_run / f"report-{n}.json").read_bytes() for n in (1, 2, 3)] == kept
    assert not list(flow_run.glob("report-4*"))
    assert not list(flow_run.glob("*unfinished*"))


def test_a_report_of_a_judge_is_not_replaced_by_one_without(
    flowlm: Callable, runs: Path, flow_run: Path
) -> None:
    words = ["evaluate", flow_run, *FEW]
    assert flowlm(*words, "--judge", runs / "autoregressive").status == 0
    before = (flow_run / "report.json").read_bytes()
    assert flowlm(*words).status == 0
    assert (flow_run / "report-1.json").read_bytes() == before
    assert json.loads((flow_run / "report.json").read_text())["judge"] == "nobody"


@pytest.mark.parametrize("change", ["weights", "temperature"])
def test_a_report_of_another_model_is_kept(
    change: str, flowlm: Callable, train: Callable, flow_run: Path, tmp_path: Path
) -> None:
    assert flowlm("evaluate", flow_run, *FEW).status == 0
    before = (flow_run / "report.json").read_bytes()
    if change == "weights":
        assert train("text-flow", tmp_path / "other", "--train.seed", 1).status == 0
        shutil.copy(tmp_path / "other/model.safetensors", flow_run)
    else:
        file = flow_run / "experiment.json"
        stated = json.loads(file.read_text())
        stated["sampler"]["temperature"] = 0.5
        file.write_text(json.dumps(stated))
    assert flowlm("evaluate", flow_run, *FEW).status == 0
    assert (flow_run / "report-1.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"[", b"{}", b"\xff", b'{"settings": {}}', b"[" * 9999, None])
def test_what_is_no_report_is_kept(content: bytes | None, flowlm: Callable, flow_run: Path) -> None:
    file = flow_run / "report.json"
    if content is None:
        file.mkdir()
        (file / "mine").write_text("precious")
    else:
        file.write_bytes(content)
    (flow_run / "report-1.html").write_text("of somebody")
    answer = flowlm("evaluate", flow_run, *FEW)
    assert answer.status == 0
    assert "report-2.json" in answer.err
    kept = flow_run / "report-2.json"
    found = (kept / "mine").read_bytes() if content is None else kept.read_bytes()
    assert found == (b"precious" if content is None else content)
    assert (flow_run / "report-1.html").read_text() == "of somebody"


def test_a_page_alone_is_kept(flowlm: Callable, flow_run: Path) -> None:
    (flow_run / "report.html").write_text("mine")
    assert "report-1.html" in flowlm("evaluate", flow_run, *FEW).err
    assert (flow_run / "report-1.html").read_text() == "mine"


# --- while it runs --------------------------------------------------------------------------------


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Press Ctrl-C when texts of so many steps are due; returns the steps that are measured."""
    real, measured = assess._timed, []

    def stop(at: int) -> list[int]:
        def timed(model: LanguageModel, steps: int, *others: Any) -> Any:
            if steps == at:
                raise KeyboardInterrupt
            measured.append(steps)
            return real(model, steps, *others)

        monkeypatch.setattr(assess, "_timed", timed)
        measured.clear()
        return measured

    return stop


def test_a_stopped_evaluation_keeps_its_rows_and_goes_on(
    flowlm: Callable, flow_run: Path, until: Callable[[int], list[int]]
) -> None:
    words = ["evaluate", flow_run, "--num", 4, "--steps", 1, 2, 4]
    until(0)
    assert flowlm(*words).status == 0
    whole = (flow_run / "report.json").read_bytes()
    for stop, rows in ((2, [1]), (4, [2])):
        measured = until(stop)
        answer = flowlm(*words)
        assert answer.status == 130
        assert measured == rows
        assert f"FLM @ {rows[0]}: Entropy" in answer.out, "a row is printed when it is measured"
        assert str(flow_run / "report-unfinished.json") in answer.err
        assert f"{stop // 2} of 3 rows are kept" in answer.err
        assert (flow_run / "report.json").read_bytes() == whole, "the whole one is worth more"
    measured = until(0)
    answer = flowlm(*words)
    assert (answer.status, measured) == (0, [4])
    assert "2 of 3 rows are measured already" in answer.out
    found, wanted = json.loads((flow_run / "report.json").read_bytes()), json.loads(whole)
    for report in (found, wanted):
        for row in report["rows"]:
            del row["seconds"]
    assert found == wanted
    assert not (flow_run / "report-unfinished.json").exists()


def test_rows_of_other_settings_are_not_gone_on_with(
    flowlm: Callable, flow_run: Path, until: Callable[[int], list[int]]
) -> None:
    until(2)
    assert flowlm("evaluate", flow_run, "--num", 4, "--steps", 1, 2).status == 130
    before = (flow_run / "report-unfinished.json").read_bytes()
    measured = until(0)
    assert flowlm("evaluate", flow_run, "--num", 5, "--steps", 1, 2).status == 0
    assert measured == [1, 2]
    assert (flow_run / "report-1.json").read_bytes() == before


def test_stopped_before_its_first_row_it_leaves_nothing(
    flowlm: Callable, runs: Path, tmp_path: Path, until: Callable[[int], list[int]]
) -> None:
    until(1)
    answer = flowlm("evaluate", runs / "flow", *FEW, "--out", tmp_path / "out")
    assert answer.status == 130
    assert "kept" not in answer.err
    assert not list(tmp_path.iterdir())


def test_a_terminal_has_a_bar_and_its_rows_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    paper, screen = (
        Console(file=io.StringIO()),
        Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False),
    )
    monkeypatch.setattr(show, "console", lambda stderr: screen)
    with show.Measuring(paper, 10) as watch:
        watch.work(5)
        watch.row({"method": "FLM", "steps": 4, "sample_entropy": 2.5, "seconds": 0.002})
    assert paper.file.getvalue() == ""
    shown = screen.file.getvalue()
    assert "FLM @ 4: Entropy 2.500, Time 2.00 ms" in shown
    assert "50%" in shown


# --- exports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["flow", "masked", "autoregressive"])
def test_nothing_is_written_into_an_export(
    method: str, flowlm: Callable, export: Callable[[str], Path], runs: Path, tmp_path: Path
) -> None:
    place = export(method)
    before = files(place)
    assert flowlm("evaluate", place, *FEW).status == 0
    assert files(place) == before
    assert sorted(files(Path("reports"))) == [f"{method}/report.html", f"{method}/report.json"]
    run = Path(shutil.copytree(runs / method, tmp_path / "run"))
    assert flowlm("evaluate", run, *FEW).status == 0
    there, here = (
        json.loads((at / "report.json").read_text())["held_out"]
        for at in (run, Path("reports") / method)
    )
    assert there, "it has a likelihood"
    assert there == here, "its text is prepared again, elsewhere"


def test_an_export_is_named_where_its_path_does_not(
    flowlm: Callable, export: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = export("flow").resolve()
    monkeypatch.chdir(place)
    before = sorted(path for path in place.iterdir())
    assert flowlm("evaluate", ".", *FEW, "--out", "../told").status == 0
    assert sorted(path for path in place.iterdir()) == before
    assert reports.place_of(".") == Path("reports/flow")


# --- figures --------------------------------------------------------------------------------------


def test_the_time_of_a_text_is_a_median_after_a_warm_up(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch of all takes 1,000 s, one later batch 50 s a text, the others 2 s a text."""
    model = library.load(runs / "flow")
    clock, calls, real = [0.0], [], Writer.frames

    def frames(self: Writer, prompt: Tokens, first: int, window: int):
        n = len(prompt)
        calls.append((n, first, self.steps))
        later = 50 * n if first == 6 else 2 * n
        clock[0] += 1000 if len(calls) == 1 else later
        return real(self, prompt, first, window)

    monkeypatch.setattr(Writer, "frames", frames)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    done: list[int] = []
    (row,) = assess.rows(model, [4], 18, 3, Euler(), done=done.append)
    assert row["seconds"] == pytest.approx(2)
    assert calls == [(3, 0, 2), *((3, first, 4) for first in range(0, 18, 3))]
    assert sum(done) == 18 * 4
    calls.clear()
    (row,) = assess.rows(model, [1], 3, 3, Euler())
    assert calls == [(1, 0, 1), (1, 0, 1), (1, 1, 1), (1, 2, 1)], "as many batches as there can be"


@pytest.mark.parametrize("method", ["flow", "masked", "autoregressive"])
def test_texts_do_not_depend_on_the_batches_they_are_written_in(method: str, runs: Path) -> None:
    model = library.load(runs / method)
    whole = model.sample(10, 3, seed=2)
    for most in (1, 3, 4, 99):
        parts = list(model.batches(10, 3, seed=2, most=most))
        assert [len(part) for part in parts[:-1]] == [most] * (len(parts) - 1)
        assert torch.equal(torch.cat(parts), whole)


def test_a_method_of_somebody_is_called_by_its_own_name(runs: Path, tmp_path: Path) -> None:
    class Newer(Masked):
        label = "Newer diffusion"
        about = "A model nobody knows."

    model = library.load(runs / "masked")
    own = replace(model.experiment, method=Newer())
    model = LanguageModel(own, model.network, model.tokenizer, model.length)
    (row,) = assess.rows(model, [2], 2, 0, Unmask())
    assert row["method"] == "Newer diffusion"
    card = model_card(own, 1, 18, 16, "me/x", None)
    assert "A model nobody knows." in card
    assert "asked diffusion" not in card
