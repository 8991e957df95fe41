"""The published schema of report.json: it is that of the types, and reports have its shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest

from flowlm.evaluate.report.json_schema import json_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_the_published_schema_is_that_of_the_types() -> None:
    """To publish a change, write `json_schema()` into the file."""
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_reports_have_its_shape(
    flowlm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowlm.run.inputs.HELD_OUT", 24)
    words = ("evaluate", "demo", "--num", 12, "--steps", 1, 2, "--seeds", 2)
    assert flowlm(*words, "--frontier", "gamma", "--out", "out").status == 0
    report = json.loads(Path("out/report.json").read_text())
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(report)
    assert {"rows", "controls", "reference", "held_out", "frontier"} <= report.keys()
    for spoil in (
        lambda r: r["rows"][0].update(unheard_of=1),
        lambda r: r["rows"][0].update(steps=0),
        lambda r: r["rows"][0]["intervals"].update(valid=[1]),
        lambda r: r["held_out"][0].update(kind="sure"),
        lambda r: r.pop("title"),
    ):
        spoilt = deepcopy(report)
        spoil(spoilt)
        assert not validator.is_valid(spoilt)
