"""The page of a server: its parts belong together, and in a browser it writes a text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

import flowlm
from browser import CHROMIUM, tab

PAGE = files("flowlm.page")


def source(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def test_the_script_finds_what_it_asks_for() -> None:
    there = set(re.findall(r'id="([\w-]+)"', source("index.html")))
    scripts = source("page.js") + source("server.js")
    wanted = set(re.findall(r'find\("([\w-]+)"\)', scripts))
    assert wanted <= there
    for name in re.search(r"controls = \[(.*?)\]", source("page.js"))[1].split(", "):  # pyright: ignore
        assert {name.strip('"'), f"{name.strip(chr(34))}-shown"} <= there


def test_the_page_takes_nothing_from_elsewhere() -> None:
    for name in ("index.html", "style.css", "page.js", "server.js"):
        assert not re.search(r"https?:|[\"'(]//|@import|from \"(?!\./)", source(name))
    # The security policy of the server allows no script or style inside the page.
    assert not re.search(r"<script>|<style|style=|\son\w+=", source("index.html"))


def test_requests_carry_the_token_and_no_other_place_keeps_it() -> None:
    script = source("server.js")
    # One place alone sends requests, and every path of the server is asked there.
    assert script.count("fetch(") == 1
    asked = set(re.findall(r'(?:ask|json)\("([^"]+)"', script))
    assert asked == {"/v1/models", "/v1/vocabulary", "/v1/film"}
    assert "Bearer ${token}" in script
    assert not re.search(r"localStorage|cookie", script)
    assert 'id="token" type="password" autocomplete="off"' in source("index.html")


@contextmanager
def served(**environment: str) -> Iterator[str]:
    """The address of a server of the demo's model."""
    words = [sys.executable, "-m", "flowlm", "serve", "demo", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_gives_the_token_once(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")
    token, button = "document.getElementById('token')", "document.querySelector('#access button')"
    give = f"{token}.value = '{{}}'; {button}.click()"
    opened = "document.querySelector('#access[open]') !== null"
    written = "document.querySelectorAll('#tokens li').length === 18"
    with served(FLOWLM_TOKEN="secret") as place, tab(tmp_path) as page:
        page.open(place, until=opened)
        assert page.run("document.getElementById('wrong').hidden")
        page.run(give.format("another"))
        page.wait(f"{opened} && !document.getElementById('wrong').hidden")
        page.run(give.format("secret"))
        page.wait(written)
        assert not page.run(opened)
        # The tab keeps it: the page is loaded again without a question.
        page.run("window.before = true")
        page.open(place, until=f"!window.before && {written}")
        assert not page.run(opened)
        assert page.run("sessionStorage.getItem('token')") == "secret"
        refused = [line for line in page.said if "401" not in line]
        assert refused == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_the_text_of_the_noise(tmp_path: Path, width: int) -> None:
    pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")
    with served() as place, tab(tmp_path, width) as page:
        page.open(place)
        text = (
            "[...document.querySelectorAll('#tokens button')].map((b) => b.textContent).join(' ')"
        )
        assert page.run(text) == flowlm.load("demo", "cpu").generate(1, 1, 0)[0]
        assert "1 evaluation of the network" in page.run(
            "document.getElementById('said').textContent"
        )
        assert page.run("document.documentElement.scrollWidth") <= width
        # What the buttons copy writes the same text.
        page.run("navigator.clipboard.writeText = (copied) => { window.copied = copied; }")
        page.run("document.querySelectorAll('#copies button')[1].click()")
        copied = subprocess.run(
            [sys.executable, "-c", page.run("window.copied")], capture_output=True, text=True
        )
        assert copied.stdout.strip() == page.run(text), copied.stderr
        assert page.said == []
        assert all(url.startswith(place) for url in page.requests)
