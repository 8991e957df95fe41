"""The exported page in a browser, opened as a file: it writes by itself what torch writes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from in_node import rounded

import flowlm
from browser import CHROMIUM, Tab, tab
from flowlm.model.language_model import LanguageModel
from flowlm.model.page import export_page
from flowlm.sampling import Jumps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

WORDS = "[...document.querySelectorAll('#tokens button')].map((button) => button.textContent)"
SAID = "document.getElementById('said').textContent"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "demo.html"
    export_page("demo", file)
    return file


@pytest.fixture(params=[1200, 420])
def shown(request: pytest.FixtureRequest, exported: Path, tmp_path: Path) -> Iterator[Tab]:
    with tab(tmp_path, request.param) as page:
        page.open(exported.as_uri())
        yield page
        assert page.said == []  # nothing in the console, of the policy neither
        assert page.requests == [exported.as_uri()]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return rounded(flowlm.load("demo", "cpu"))


def move(page: Tab, control: str, value: float) -> None:
    """Move a slider, and wait for what is written then."""
    page.run(
        f"{SAID.removesuffix('.textContent')}.textContent = 'waiting',"
        f"document.getElementById('{control}').value = {value},"
        f"document.getElementById('{control}').dispatchEvent(new Event('input'))"
    )
    page.wait(f"{SAID} !== 'waiting'")


def words(page: Tab) -> str:
    return " ".join(page.run(WORDS))


def test_sliders_write_the_same_noise_again(shown: Tab, model: LanguageModel) -> None:
    assert words(shown) == model.generate(1, 1, 0)[0]
    assert shown.run(SAID).startswith("1 evaluation of the network; left to right it would take 18")
    move(shown, "steps", 8)
    assert words(shown) == model.generate(1, 8, 0)[0]
    move(shown, "seed", 7)
    assert words(shown) == model.generate(1, 8, 7)[0]
    for position, gamma in (("1", 1.0), ("0", 0.0), ("-0.1", None)):
        move(shown, "gamma", position)
        assert words(shown) == model.generate(1, 8, 7, sampler=Jumps(gamma=gamma))[0]
    move(shown, "steps", 1)
    move(shown, "seed", 0)
    assert words(shown) == model.generate(1, 1, 0)[0]
    assert not shown.run("document.documentElement.scrollWidth > innerWidth")  # nothing beside it


def test_a_pinned_token_is_kept_and_a_link_brings_it_back(shown: Tab, exported: Path) -> None:
    before = shown.run(WORDS)
    shown.run("document.querySelectorAll('#tokens button')[4].click()")
    likely = shown.run("[...document.querySelectorAll('#likely button')].map((one) => one.value)")
    assert len(likely) == 5
    shown.run("document.getElementById('word').value = 'sing'")
    shown.run(f"{SAID.removesuffix('.textContent')}.textContent = 'waiting'")
    shown.run("document.querySelector('menu button[value=pin]').click()")
    shown.wait(f"{SAID} !== 'waiting'")
    after = shown.run(WORDS)
    assert after[4] == "sing" != before[4]
    assert shown.run("document.querySelectorAll('#tokens .pinned').length") == 1
    move(shown, "seed", 3)
    assert shown.run(WORDS)[4] == "sing"
    # What the button copies leads to the same text.
    text = words(shown)
    shown.run("navigator.clipboard.writeText = (copied) => { window.copied = copied; }")
    shown.run("document.querySelector('#copies button').click()")
    link = shown.run("window.copied")
    assert link.startswith(f"{exported.as_uri()}#")
    shown.run("document.getElementById('free').click()")
    move(shown, "seed", 0)
    assert words(shown) == " ".join(before)
    shown.run(f"{SAID.removesuffix('.textContent')}.textContent = 'waiting'")
    shown.run(f"location.href = {link!r}")
    shown.wait(f"{SAID} !== 'waiting'")
    assert words(shown) == text


def test_frames_of_the_film_advance(shown: Tab, model: LanguageModel) -> None:
    move(shown, "steps", 4)
    frames = [frame.tokens() for frame in model.film(1, 4)]
    for step, tokens in enumerate(frames):
        shown.run(
            f"document.getElementById('frame').value = {step},"
            "document.getElementById('frame').dispatchEvent(new Event('input'))"
        )
        moment = shown.run("document.getElementById('moment').textContent")
        assert moment == f"step {step + 1} of 4, τ {step / 4:.2f}"
        assert words(shown) == model.decode(tokens)[0]
    shown.run("document.getElementById('play').click()")
    assert shown.run("document.getElementById('frame').value") == "0"
    shown.wait("document.getElementById('frame').value === '3'")
    shown.wait("document.getElementById('play').textContent === 'Play'")


def test_twenty_noises_are_written_as_by_torch(shown: Tab, model: LanguageModel) -> None:
    for steps in (1, 8):
        for seed in range(20):
            film = f"[...flowlm.film({{ steps: {steps}, seed: {seed} }})].at(-1)"
            tokens, logp = shown.run(f"(({{ tokens, logp }}) => [tokens, [...logp]])({film})")
            *_, last = model.film(1, steps, seed)
            assert tokens == last.tokens()[0].tolist()
            ours = last.prediction.log_probs().flatten()
            assert torch.allclose(torch.tensor(logp), ours, atol=1e-3)


def test_no_request_can_leave(exported: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap, tab(tmp_path) as page:
        place = f"'http://127.0.0.1:{trap.getsockname()[1]}/'"
        image = f"void document.body.append(Object.assign(new Image(), {{ src: {place} }}))"
        trap.settimeout(10)
        page.run(image)
        trap.accept()[0].close()  # an empty page asks
        page.open(exported.as_uri())
        page.run(image)
        sent = f"fetch({place}).then(() => 'sent', (error) => error.message)"
        assert page.run(sent) == "Failed to fetch"
        trap.settimeout(1)
        with pytest.raises(TimeoutError):
            trap.accept()
        assert sum("Content Security Policy" in said for said in page.said) >= 2


def test_the_temperature_reaches_the_sampler(shown: Tab, model: LanguageModel) -> None:
    move(shown, "steps", 4)
    move(shown, "temperature", 1.5)
    assert words(shown) == model.generate(1, 4, 0, sampler=Jumps(temperature=1.5))[0]
