"""The page of a server: its parts belong together, and in a browser it writes a text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import flowlm

PAGE = files("flowlm.page")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def source(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def test_the_script_finds_what_it_asks_for() -> None:
    there = set(re.findall(r'id="([\w-]+)"', source("index.html")))
    wanted = set(re.findall(r'find\("([\w-]+)"\)', source("page.js")))
    assert wanted <= there
    for name in re.search(r"controls = \[(.*?)\]", source("page.js"))[1].split(", "):  # pyright: ignore
        assert {name.strip('"'), f"{name.strip(chr(34))}-shown"} <= there


def test_the_page_takes_nothing_from_elsewhere() -> None:
    for name in ("index.html", "style.css", "page.js", "server.js"):
        assert not re.search(r"https?:|[\"'(]//|@import|from \"(?!\./)", source(name))
    # The security policy of the server allows no script or style inside the page.
    assert not re.search(r"<script>|<style|style=|\son\w+=", source("index.html"))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_the_text_of_the_noise(tmp_path: Path, width: int) -> None:
    pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")
    words = [sys.executable, "-m", "flowlm", "serve", "demo", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        place = server.stdout.readline().split()[-1]
        try:
            shown = subprocess.run(
                [
                    str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                    "--no-first-run", "--disable-background-networking",
                    "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
                    f"--user-data-dir={tmp_path}", f"--window-size={width},800",
                    "--virtual-time-budget=8000", "--dump-dom", place,
                ],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        finally:
            server.terminate()
    chips = re.findall(r"<li><button[^>]*>([^<]*)</button></li>", shown.stdout)
    assert " ".join(chips) == flowlm.load("demo", "cpu").generate(1, 1, 0)[0]
    assert "1 evaluation of the network" in shown.stdout
    assert "CONSOLE" not in shown.stderr
