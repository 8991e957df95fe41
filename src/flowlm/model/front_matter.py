"""The front matter of a model card: what the hub reads of it, with the results of a report."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowlm.errors import Refusal
from flowlm.evaluate.held_out import described
from flowlm.experiment import Experiment, Text
from flowlm.hub.names import PREFIX

TAGS = ("flowlm", "flow-language-model", "diffusion-language-model")

EXACT = "the exact law of the language"
"""Who scores texts where a report names no judge."""


def require_license(name: object) -> str | None:
    """The id of a licence as the hub writes them, or None for none; a Refusal of what is no id."""
    if name is None:
        return None
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", name):
        raise Refusal(
            "The licence must be an id of the hub, of lower-case letters, digits, dots and dashes, "
            f"such as apache-2.0, mit or other, not {str(name)[:40]!r}."
        )
    return name


def front_matter(
    name: str, experiment: Experiment, license: str | None, report: Mapping[str, Any] | None
) -> str:
    """YAML between two rules: library, task, tags, the licence, and the results of a report."""
    lines = ["library_name: flowlm", "pipeline_tag: text-generation"]
    if license is not None:
        lines.append(f"license: {license}")
    lines += ["tags:", *(f"- {tag}" for tag in TAGS)]
    metrics = [] if report is None else list(_metrics(report))
    if metrics:
        kind, called = _data(experiment)
        lines += [
            "model-index:", f"- name: {_quoted(name)}", "  results:",
            "  - task:", "      type: text-generation",
            "    dataset:", f"      type: {_quoted(kind)}", f"      name: {_quoted(called)}",
            "    metrics:",
        ]  # fmt: skip
        for key, value, said in metrics:
            lines += [f"    - type: {key}", f"      value: {_number(value)}"]
            lines += [f"      name: {_quoted(said)}"]
    return "\n".join(["---", *lines, "---"])


def _metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Kind, value and name of each figure; as the report has it."""
    for row in report.get("held_out") or []:
        if math.isfinite(row["nats"]):
            yield "held_out_nats", row["nats"], f"Held-out nats per token ({described(row)})"
    judge = report.get("judge") or EXACT
    names = {
        "nll": f"Nats per token of its texts under {judge}",
        "sample_entropy": "Sample entropy of its texts, nats",
    }
    for row in report["rows"]:
        for key, said in names.items():
            value = row.get(key)
            if value is not None and math.isfinite(value):
                yield key, value, f"{said}, {_steps(row['steps'])}"


def _steps(steps: int | str) -> str:
    return f"{steps} step" if steps == 1 else f"{steps} steps"


def _data(experiment: Experiment) -> tuple[str, str]:
    """The id of the data set, of the hub where it is from there, and its name."""
    data = experiment.data
    called = (data.path or "text") if isinstance(data, Text) else data.about
    called = called.removeprefix(PREFIX)
    return re.sub(r"[^\w./-]+", "-", called).strip("-") or "text", called


def _quoted(text: str) -> str:
    """A text as YAML reads it; of what no reader would show, a space."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return json.dumps(shown, ensure_ascii=False)


def _number(value: float) -> str:
    """A number as YAML reads it, which wants a dot before an exponent."""
    said = repr(value)
    return said.replace("e", ".0e") if "e" in said and "." not in said else said
