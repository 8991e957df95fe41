"""`flowlm sample --film`: what is shown of texts while they come into being."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import flowlm as library
from flowlm.cli.film import HUES, Confidence, show_film
from flowlm.cli.lines import one_line
from flowlm.core import FREE
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import Bridge, Euler, Frame, Heun

METHODS = ("flow", "flow-map", "masked", "autoregressive")


@pytest.mark.parametrize("method", METHODS)
def test_a_film_without_a_terminal_is_a_line_a_frame(
    method: str, flowlm: Callable, runs: Path
) -> None:
    shown = flowlm("sample", runs / method, "--film", "--num", 2, "--steps", 4)
    assert shown.status == 0
    model = library.load(runs / method)
    frames = list(model.film(2, 4))
    assert len(frames) == (16 if method == "autoregressive" else 4) == shown.out.count("\n")
    # Every place is a dot until it is written, and the last frame is the text.
    assert shown.out.count("·") == sum(int((frame.tokens() == FREE).sum()) for frame in frames)
    texts = " | ".join(map(one_line, model.generate(2, 4)))
    assert shown.out.endswith(texts + "\n")


@pytest.mark.parametrize("sampler", [Euler(), Heun(), Bridge()], ids=lambda s: type(s).__name__)
def test_confidence_where_a_point_travels_is_that_of_the_prediction(
    sampler: Euler | Bridge, runs: Path
) -> None:
    model, confidence = library.load(runs / "flow"), Confidence()
    for frame in model.film(3, 4, sampler=sampler):
        wanted = frame.prediction.log_probs().exp().gather(-1, frame.tokens()[..., None])
        torch.testing.assert_close(confidence.of(frame), wanted.squeeze(-1))


@pytest.mark.parametrize("method", ["masked", "autoregressive"])
def test_confidence_of_a_token_is_that_with_which_it_came(method: str, runs: Path) -> None:
    """The product of all of them is the probability of the draws, exactly for one left to right."""
    model, confidence = library.load(runs / method), Confidence()
    before, product = None, torch.zeros(3)
    for frame in model.film(3, 4):
        tokens, found = frame.tokens(), confidence.of(frame)
        assert torch.equal(found.isnan(), tokens == FREE)
        if before is not None:
            old = before[0] != FREE
            assert torch.equal(found[old], before[1][old])
        before = tokens, found
        product = found.log().sum(-1)
    if method == "autoregressive":
        (tokens, _), network = before, model.network
        begin = torch.full((3, 1), network.vocab)
        logp = network(torch.cat((begin, tokens[:, :-1]), 1)).log_probs()
        exact = logp.gather(-1, tokens[..., None]).squeeze(-1).sum(-1)
        torch.testing.assert_close(product, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_given_tokens_have_no_confidence_and_all_others_have(method: str, runs: Path) -> None:
    """At every moment, whatever is written, in texts of which each is given something else."""
    prompt, confidence = torch.full((3, 16), FREE), Confidence()
    prompt[0, :5], prompt[1, :2] = torch.arange(5), 1
    for frame in library.load(runs / method).film(3, 4, prompt=prompt):
        uncertain = (prompt != FREE) | (frame.tokens() == FREE)
        assert torch.equal(confidence.of(frame).isnan(), uncertain)


def on_paper(frames: list[Frame], model: LanguageModel) -> str:
    """The film as a terminal shows it, in HTML."""
    console = Console(
        force_terminal=True, width=120, height=50, color_system="truecolor", record=True,
        file=open("/dev/null", "w"),  # noqa: SIM115
    )  # fmt: skip
    show_film(console, frames, model.tokenizer, fps=5)
    return console.export_html(inline_styles=True)


def test_a_film_on_a_terminal_underlines_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlm.cli.film.time.sleep", lambda _: None)
    model = library.load("demo")
    frames = list(model.film(1, 2, prompt="these old sailors"))
    *_, last = on_paper(frames, model).split("tau ")
    header, text = last.split("\n", 1)
    assert "underline" in header
    lined = "".join(re.findall(r"<span[^>]*underline[^>]*>([^<]*)</span>", text))
    assert lined.strip() == "these old sailors"
    assert "underline" not in on_paper(list(model.film(1, 2)), model)


def test_a_film_on_a_terminal_has_the_time_and_colours(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("flowlm.cli.film.time.sleep", slept.append)
    monkeypatch.setattr("flowlm.cli.film.time.monotonic", lambda: 0.0)
    model = library.load(runs / "flow")
    frames = list(model.film(1, 4))
    shown = on_paper(frames, model)
    assert slept == [0.0, *[0.2] * 3], "the first frame at once, the others a fifth later each"
    assert [f"{float(frame.tau[0, 0]):.3f}" for frame in frames] == re.findall(
        r"tau (\d\.\d{3})", shown
    )[:4]
    (sure,) = Confidence().of(frames[-1]).tolist()
    *_, last = shown.split("tau ")
    for hue in {HUES[min(math.floor(p * 5), 4)] for p in sure}:
        styles = re.findall(rf"color: {hue}", last)
        assert len(styles) >= 2, "in the header, and in the text"
