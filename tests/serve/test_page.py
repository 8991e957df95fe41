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
from browser import CHROMIUM, QUIET, browsing

import flowlm

PAGE = files("flowlm.page")


def source(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def test_the_script_finds_what_it_asks_for() -> None:
    there = set(re.findall(r'id="([\w-]+)"', source("index.html")))
    wanted = set(re.findall(r'find\("([\w-]+)"\)', source("page.js")))
    assert wanted <= there
    for name in re.search(r"controls = \[(.*?)\]", source("page.js"))[1].split(", "):  # pyright: ignore
        assert {name.strip('"'), f"{name.strip(chr(34))}-shown"} <= there


def test_the_page_takes_nothing_from_elsewhere() -> None:
    for name in ("index.html", "style.css", "page.js"):
        assert not re.search(r"https?:|[\"'(]//|@import|from \"", source(name))
    # The security policy of the server allows no script or style inside the page.
    assert not re.search(r"<script>|<style|style=|\son\w+=", source("index.html"))


def test_requests_carry_the_token_and_no_other_place_keeps_it() -> None:
    script = source("page.js")
    # One place alone sends requests, and every path of the server is asked there.
    assert script.count("fetch(") == 1
    assert set(re.findall(r'ask\("([^"]+)"', script)) == {
        "/v1/models", "/v1/vocabulary", "/v1/film",
    }  # fmt: skip
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
    give = "find('token').value = '{}'; find('access').querySelector('button').click()"
    give = give.replace("find(", "document.getElementById(")
    opened, chips = "document.querySelector('#access[open]') !== null", "#tokens li"
    with served(FLOWLM_TOKEN="secret") as place, browsing(tmp_path) as page:
        page.open(place)
        page.wait(opened)
        assert page.value("document.getElementById('wrong').hidden")
        page.value(give.format("another"))
        page.wait(f"{opened} && !document.getElementById('wrong').hidden")
        page.value(give.format("secret"))
        page.wait(f"document.querySelectorAll('{chips}').length === 18")
        assert not page.value(opened)
        # The tab keeps it: the page is loaded again without a question.
        page.value("window.before = true")
        page.open(place)
        page.wait(f"!window.before && document.querySelectorAll('{chips}').length === 18")
        assert not page.value(opened)
        assert page.value("sessionStorage.getItem('token')") == "secret"
        assert page.problems == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_the_text_of_the_noise(tmp_path: Path, width: int) -> None:
    pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")
    with served() as place:
        shown = subprocess.run(
            [
                str(CHROMIUM), *QUIET, "--enable-logging=stderr", f"--user-data-dir={tmp_path}",
                f"--window-size={width},800", "--virtual-time-budget=8000", "--dump-dom", place,
            ],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    chips = re.findall(r"<li><button[^>]*>([^<]*)</button></li>", shown.stdout)
    assert " ".join(chips) == flowlm.load("demo", "cpu").generate(1, 1, 0)[0]
    assert "1 evaluation of the network" in shown.stdout
    assert "CONSOLE" not in shown.stderr
