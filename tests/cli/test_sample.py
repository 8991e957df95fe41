"""`flowlm sample`: what goes where, in which form, and that it is what the library writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flowlm as library
from flowlm.cli.lines import one_line
from flowlm.core import Tokens
from flowlm.experiment import settings_of
from flowlm.machine.hardware import choose_device
from flowlm.model.language_model import LanguageModel
from flowlm.model.writing import Writer
from flowlm.sampling import Bridge

METHODS = ("flow", "flow-map", "masked", "autoregressive")


@pytest.mark.parametrize("method", METHODS)
def test_texts_are_what_the_library_writes_and_go_out_alone(
    method: str, flowlm: Callable, runs: Path
) -> None:
    answer = flowlm("sample", runs / method, "--steps", 1, 4, 8, "--num", 3, "--seed", 5)
    assert answer.status == 0
    once = method == "autoregressive"
    model = library.load(runs / method)
    texts = [t for steps in (1, 4, 8)[: 1 if once else 3] for t in model.generate(3, steps, seed=5)]
    assert answer.out == "".join(one_line(text) + "\n" for text in texts)
    rules = [line for line in answer.err.splitlines() if line.startswith(("─", "-"))]
    wanted = ["16 evaluations"] if once else ["1 step", "4 steps", "8 steps"]
    assert [rule.strip("─- ") for rule in rules] == wanted
    assert answer.err.count("whatever --steps says") == once


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_writes_the_same(method: str, flowlm: Callable, runs: Path) -> None:
    words = ["sample", runs / method, "--steps", 4]
    assert flowlm(*words, "--seed", 1).out == flowlm(*words, "--seed", 1).out
    assert flowlm(*words, "--seed", 1).out != flowlm(*words, "--seed", 2).out


@pytest.mark.parametrize("method", METHODS)
def test_a_text_does_not_depend_on_how_many_are_written(
    method: str, flowlm: Callable, runs: Path
) -> None:
    words = ["sample", runs / method, "--steps", 4]
    few, many = flowlm(*words, "--num", 2).out, flowlm(*words, "--num", 11).out
    assert many.startswith(few)
    assert flowlm(*words, "--num", 11, "--batch", 3).out == many


def test_texts_are_printed_as_they_are_written(
    flowlm: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sample", runs / "flow", "--num", 9]
    whole = flowlm(*words).out
    written = Writer.frames

    def stopped(self: Writer, prompt: Tokens, first: int, window: int):
        assert len(prompt) == 3
        if first == 6:
            raise KeyboardInterrupt
        return written(self, prompt, first, window)

    monkeypatch.setattr(Writer, "frames", stopped)
    answer = flowlm(*words, "--batch", 3)
    assert answer.status == 130
    assert answer.out == "".join(whole.splitlines(keepends=True)[:6])


def test_two_evaluations_a_step_are_said(train: Callable, flowlm: Callable, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("text-flow", out, "--sampler", "heun", "--train.steps", 1).status == 0
    said = flowlm("sample", out, "--steps", 1, 4, "--num", 1).err.splitlines()
    assert [line.strip("─- ") for line in said] == ["1 step", "4 steps, 7 evaluations"]
    assert flowlm("evaluate", out, "--steps", 1, 4, "--num", 2).status == 0
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert [(row["steps"], row["evaluations"]) for row in rows] == [(1, 1), (4, 7)]


def test_fresh_noise_between_jumps_does_not_depend_on_how_many_are_written(
    flowlm: Callable, runs: Path
) -> None:
    words = ["sample", runs / "flow-map", "--steps", 4, "--sampler.gamma", 0.5]
    few, many = flowlm(*words, "--num", 2).out, flowlm(*words, "--num", 11).out
    assert many.startswith(few)
    assert flowlm(*words, "--num", 11, "--batch", 3).out == many


# --- forms ------------------------------------------------------------------------------------


def read_back(line: str) -> str:
    """The text of a line, by the rules that help states."""
    meant = {"n": "\n", "r": "\r", "\\": "\\"}
    return re.sub(r"\\(.)", lambda found: meant[found[1]], line)


@pytest.mark.parametrize(
    "text", ["", "a b", "a\nb", "\\n", "\\", "\\\n", "a\r\n\n\\\\r", ":cat: [bold]x[/bold] a\tb"]
)
def test_a_text_is_a_line_that_can_be_read_back(
    text: str, flowlm: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A terminal library may read more into text than is there: names of emoji, markup, tabs.
    tokens = [torch.zeros(1, 1, dtype=torch.long)]
    monkeypatch.setattr(LanguageModel, "batches", lambda *_, **__: iter(tokens))
    monkeypatch.setattr("flowlm.data.tokenizer.Tokenizer.decode", lambda *_: text)
    out = flowlm("sample", runs / "flow", "--num", 1).out
    assert out.count("\n") == 1
    assert "\r" not in out
    assert read_back(out[:-1]) == text
    assert json.loads(flowlm("sample", runs / "flow", "--num", 1, "--json").out)["text"] == text


def test_on_a_terminal_a_text_stands_as_it_is_below_its_number(
    flowlm: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [torch.tensor([[0, 1], [2, 3]])]
    monkeypatch.setattr(LanguageModel, "batches", lambda *_, **__: iter(rows))
    monkeypatch.setattr("flowlm.data.tokenizer.Tokenizer.decode", lambda _, ids: f"{ids[0]}\n\\")
    monkeypatch.setattr("flowlm.cli.show.Paper.is_terminal", property(lambda self: not self.stderr))
    shown = flowlm("sample", runs / "flow", "--num", 2).out
    shown = re.sub("\x1b\\[[0-9;]*m|[─-]", "", shown)
    assert [line.strip() for line in shown.splitlines()] == ["0", "0", "\\", "1", "2", "\\"]


@pytest.mark.parametrize("method", METHODS)
def test_json_says_how_a_text_was_written(method: str, flowlm: Callable, runs: Path) -> None:
    words = ["--steps", 2, 4, "--num", 3, "--seed", 7, "--json", "--quiet"]
    answer = flowlm("sample", runs / method, *words)
    assert (answer.status, answer.err) == (0, "")
    model, once = library.load(runs / method), method == "autoregressive"
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert len(lines) == (3 if once else 6)
    for place, line in enumerate(lines):
        steps = (2, 4)[place // 3]
        tokens = model.sample(3, steps, seed=7)[place % 3].tolist()
        assert model.tokenizer is not None
        assert line == {
            "text": model.tokenizer.decode(tokens), "tokens": tokens, "seed": 7,
            "number": place % 3, "steps": None if once else steps,
            "evaluations": 16 if once else steps,
            "sampler": settings_of(model.experiment.sampler),
        }  # fmt: skip


def test_json_without_a_tokenizer_has_tokens_alone(flowlm: Callable, flow_run: Path) -> None:
    (flow_run / "tokenizer.json").unlink()
    line = json.loads(flowlm("sample", flow_run, "--num", 1, "--json").out)
    assert (line["text"], len(line["tokens"])) == (None, 16)


def test_quiet_leaves_errors(flowlm: Callable, runs: Path) -> None:
    words = ["sample", runs / "autoregressive", "--num", 1]
    assert flowlm(*words).err
    assert flowlm(*words, "--quiet").err == ""
    flowlm("sample", runs / "flow", "--quiet", "--num", 0).refusal("number of texts")


# --- a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_file_holds_what_would_have_been_printed(
    form: list[str], flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "texts", ["sample", runs / "flow", "--steps", 1, 4, *form]
    answer = flowlm(*words, "--out", out)
    assert (answer.status, answer.out) == (0, "")
    assert out.read_text(encoding="utf-8") == flowlm(*words).out
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_exists_is_not_replaced(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    out.write_text("precious")
    flowlm("sample", runs / "flow", "--out", out).refusal(out, "exists already")
    flowlm("sample", runs / "flow", "--out", out / "below").refusal(out / "below")
    assert out.read_text() == "precious"
    (link := tmp_path / "link").symlink_to("nowhere")
    flowlm("sample", runs / "flow", "--out", link).refusal(link)
    assert sorted(tmp_path.iterdir()) == [link, out]


def test_a_file_is_whole_or_not_there(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Writer.frames

    def stopped(self: Writer, prompt: Tokens, first: int, window: int):
        if first:
            raise KeyboardInterrupt
        return written(self, prompt, first, window)

    monkeypatch.setattr(Writer, "frames", stopped)
    words = ["sample", runs / "flow", "--batch", 3, "--out", tmp_path / "texts"]
    assert flowlm(*words).status == 130
    assert not list(tmp_path.iterdir())


# --- settings ---------------------------------------------------------------------------------


def test_short_options_are_settings_of_whatever_sampler(flowlm: Callable, runs: Path) -> None:
    words = ["sample", runs / "masked", "--steps", 4]
    short = flowlm(*words, "--temperature", 0.5, "--top-p", 0.8)
    long = flowlm(*words, "--sampler.temperature", 0.5, "--sampler.top-p", 0.8)
    assert short.status == 0
    assert short.out == long.out != flowlm(*words).out
    words = ["sample", runs / "flow", "--steps", 4, "--sampler", "bridge"]
    texts = library.load(runs / "flow").generate(8, 4, sampler=Bridge(top_p=0.5))
    assert flowlm(*words, "--top-p", 0.5).out.splitlines() == [*map(one_line, texts)]


@pytest.mark.parametrize(
    ("run", "words", "named"),
    [
        ("flow-map", "--sampler refine --temperature 0.5", ("refine", "--temperature")),
        ("flow", "--top-p 0.5", ("euler", "--top-p")),
        ("flow", "--temperature 0.5 --sampler.temperature 0.6", ("--temperature", "one of")),
        ("masked", "--top_p 0.5 --sampler.top_p=0.6", ("--top-p", "one of")),
        ("flow", "--temperature 0", ("temperature",)),
        ("masked", "--top-p 2", ("top-p",)),
        ("flow", "--batch 0", ("--batch",)),
        ("flow", "--film --fps 0", ("--fps",)),
        ("flow", "--film --fps nan", ("--fps",)),
        ("flow", "--film --json", ("--film", "--json")),
        ("flow", "--film --out x", ("--film", "--out")),
        ("flow", "--film --batch 2", ("--film", "--batch")),
    ],
)
def test_options_that_cannot_be_are_refused(
    run: str, words: str, named: tuple[str, ...], flowlm: Callable, runs: Path
) -> None:
    flowlm("sample", runs / run, *words.split()).refusal(*named)


def test_auto_takes_a_device_that_can_draw_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, writing, training in (
        (0, True, "cpu", "mps"), (2, True, "cuda", "cuda"), (0, False, "cpu", "cpu"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "device_count", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.mps, "is_available", lambda mps=mps: mps)
        assert choose_device("auto", float64=True).type == writing
        assert choose_device("auto").type == training
