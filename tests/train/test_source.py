"""The commit that reports name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flowlm.machine import source


def git(place: Path, *words: str) -> str:
    named = ("-c", "user.name=N", "-c", "user.email=n@example.org")
    done = subprocess.run(
        ["git", *named, *words], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_has_a_commit_and_a_package_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert source.commit() is None
    git(tmp_path, "init", "--quiet")
    assert source.commit() is None  # nothing is committed yet
    (tmp_path / "src").mkdir()
    code = tmp_path / "src" / "code.py"
    code.write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert source.commit() == head
    (tmp_path / "report.html").write_text("beside the source")
    assert source.commit() == head
    code.write_text("2")
    assert source.commit() == head + "+changes"
    monkeypatch.setenv("PATH", "")
    assert source.commit() is None  # without git
