"""A report as one HTML page that needs nothing else: no server, no network, no library."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from flowlm.evaluate.report import figures, frontiers, sections
from flowlm.evaluate.report.judges import judges
from flowlm.evaluate.report.markup import Html, element, joined
from flowlm.evaluate.report.schema import Report, checked
from flowlm.evaluate.report.table import results_table
from flowlm.files import write_text


def render(report: Mapping[str, Any]) -> str:
    """The page for a report of the shape `schema.Report`."""
    known = checked(report)
    script = _file("page.js")
    return Template(_file("page.html")).substitute(
        title=element("title", known["title"]),
        policy=_policy(script),
        style=_file("style.css"),
        script=script,
        body=_body(known),
    )


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the page, the whole of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(render(report), path)


def _body(report: Report) -> Html:
    parts = {
        "Results": (results_table(report) if report["rows"] else Html("")),
        "Other judges": judges(report),
        "Valid texts by kind": sections.kinds(report),
        "Quality and diversity over steps": figures.results(report),
        "Differences, text by text": sections.differences(report),
        "Quality against diversity": frontiers.frontiers(report),
        "Likelihood of held-out text": sections.held_out(report),
        "Training": figures.training(report),
        "Held-out cross-entropy over time": figures.levels(report),
        "Samples": sections.samples(report),
        "One text being written": sections.film(report),
        "How to read the numbers": sections.definitions(report),
        "Where the numbers come from": sections.facts(report) if report.get("facts") else Html(""),
    }
    remarks = {
        "Held-out cross-entropy over time": "Of the clean tokens, seen in noise at each clock time "
        "tau: no likelihood, and low values alone do not make good text.",
        "Differences, text by text": "Texts of one number begin from the same noise in all models, "
        "so their differences vary less than the texts do. An interval that holds 0 decides "
        "nothing.",
        "Quality against diversity": "Lower and further to the right is better. Models compare at "
        "the same entropy; nothing is said beyond the points that were reached.",
        "Likelihood of held-out text": "The likelihood itself may be better than an upper bound: "
        "a lower bound than another number is better, a higher one proves nothing.",
        "Training": "The losses of different methods are different quantities: "
        "compare a curve with itself only.",
    }
    return joined(
        [
            element(
                "header",
                element("h1", report["title"]),
                element("p", report["summary"], class_="finding"),
            ),
            *(
                element(
                    "section",
                    element("h2", title),
                    *([element("p", remarks[title], class_="remark")] if title in remarks else []),
                    content,
                )
                for title, content in parts.items()
                if content
            ),
        ],
        "\n",
    )


def _policy(script: str) -> str:
    """A content security policy: nothing from outside, no script but the page's own."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = {"default-src": "'none'", "style-src": "'unsafe-inline'", "img-src": "data:"}
    allowed["script-src"] = f"'sha256-{digest}'"
    return "; ".join(f"{what} {where}" for what, where in allowed.items())


def _file(name: str) -> str:
    return resources.files("flowlm.evaluate.report").joinpath(name).read_text(encoding="utf-8")
