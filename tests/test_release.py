"""What a release consists of besides the package: versions, the image of a server, Spaces."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flowlm.cli.parse import parsed
from flowlm.cli.serving import Serve

yaml = pytest.importorskip("yaml", reason="pip install 'flowlm[dev]'")

from packaging.requirements import Requirement  # noqa: E402
from packaging.utils import canonicalize_name  # noqa: E402

ROOT = Path(__file__).parents[1]
SPACES = ROOT / "spaces"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with what follows it on its lines."""
    text = re.sub(r"^#.*\n", "", file.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line]


def last(file: Path, name: str) -> str:
    return [said for word, said in instructions(file) if word == name][-1]


def served(words: list[str]) -> Serve:
    """The options that the command line reads from a command of an image."""
    assert words[:2] == ["flowlm", "serve"]
    return parsed(Serve, "serve", words[2:])


# --- versions -------------------------------------------------------------------------------------


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_requirement_has_a_version_that_fits() -> None:
    stated, optional = constraints(), PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in optional.values() for line in extra)]
    wanted = [one for one in map(Requirement, lines) if one.name != "flowlm"]
    assert len(wanted) > 20
    for one in wanted:
        assert one.specifier.contains(stated[canonicalize_name(one.name)], prereleases=True), one


def test_versions_name_no_place_and_no_build() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()[1:]
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted({*names})
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*", line) for line in lines)
    assert "flowlm" not in constraints()


def test_the_versions_are_written_from_what_is_installed() -> None:
    words = [sys.executable, str(ROOT / ".ci" / "constraints.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        assert "is not installed" in done.stderr
        pytest.skip(done.stderr)
    first, *lines = done.stdout.splitlines()
    assert first.startswith("#")
    found = dict(line.split("==") for line in lines)
    assert {"torch", "tyro", "starlette", "httptools", "pytest"} <= found.keys()
    assert not re.search(r"[+@/]", "".join(lines))


# --- the image of a server ------------------------------------------------------------------------


def test_the_image_serves_what_it_exposes_to_no_root() -> None:
    file = ROOT / "Dockerfile"
    serving = served(json.loads(last(file, "ENTRYPOINT")) + json.loads(last(file, "CMD")))
    assert (serving.run, serving.host) == ("demo", "0.0.0.0")
    assert str(serving.port) == last(file, "EXPOSE")
    assert last(file, "USER") not in ("root", "0")
    words = [word for word, _ in instructions(file)]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")
    check = last(file, "HEALTHCHECK")
    assert f"http://127.0.0.1:{serving.port}/healthz" in check
    code = json.loads(check[check.index("[") :])
    compile(code[-1], "HEALTHCHECK", "exec")
    assert last(file, "FROM") == "python:3.12-slim"
    installs = [said for word, said in instructions(file) if word == "RUN" and "pip" in said]
    assert all("https://download.pytorch.org/whl/cpu" in said for said in installs)
    assert all("-c constraints.txt" in said for said in installs)


def test_the_image_is_built_from_what_is_sent() -> None:
    patterns = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert "*" in patterns
    copied = {
        source
        for word, said in instructions(ROOT / "Dockerfile")
        if word == "COPY"
        for source in said.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)
    # What the build of the package reads is there.
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"}
    assert needed <= copied


# --- Spaces ---------------------------------------------------------------------------------------


def matter(file: Path) -> dict[str, Any]:
    """The front matter of a page."""
    _, said, _ = file.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(said)


@pytest.mark.parametrize("host", ["me-flowlm.hf.space", None])
def test_a_space_serves_at_its_port_by_its_name(host: str | None) -> None:
    file, said = SPACES / "docker" / "Dockerfile", matter(SPACES / "docker" / "README.md")
    assert said["sdk"] == "docker"
    assert str(said["app_port"]) == last(file, "EXPOSE")
    assert last(file, "USER") not in ("root", "0")
    command = last(file, "CMD").removeprefix("exec ")
    environment = {} if host is None else {"SPACE_HOST": host}
    # The shell of the image, with a program in flowlm's place that says what it was told.
    words = subprocess.run(
        ["sh", "-c", f'flowlm() {{ printf "%s\\n" flowlm "$@"; }}\n{command}'],
        capture_output=True, text=True, env=environment, check=True,
    ).stdout.splitlines()  # fmt: skip
    serving = served(words)
    assert (serving.run, serving.host, serving.port) == ("demo", "0.0.0.0", said["app_port"])
    assert serving.names == (host or "localhost",)
    assert serving.frame == "https://huggingface.co"


def test_a_page_without_a_server_says_how_it_is_made() -> None:
    readme = SPACES / "static" / "README.md"
    said = matter(readme)
    assert (said["sdk"], said["app_file"]) == ("static", "index.html")
    assert "`flowlm export demo --page index.html`" in readme.read_text("utf-8")


def test_pages_of_spaces_are_short_enough_for_the_hub() -> None:
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    for place in SPACES.iterdir():
        said = matter(place / "README.md")
        assert len(said["short_description"]) <= 60
        assert {said["colorFrom"], said["colorTo"]} <= colours
        assert said["title"]
