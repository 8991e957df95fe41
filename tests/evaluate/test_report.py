"""The report page: read back with an HTML parser, and judged as a reader would."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlm.errors import Refusal
from flowlm.evaluate.report import render, write_report
from flowlm.evaluate.report.charts import decades_axis, linear_axis, powers_axis, spread, thinned

REFERENCE = {
    "method": "The language itself",
    "entropy": 1.2,
    "valid": 1,
    "nll": 1.25,
    "sample_entropy": 3,
}
CONTROLS = [{"method": "Tokens drawn independently", "valid": 1e-4}]
EVIL = "<script>alert('x')</script> & \"more\""


@dataclass
class Node:
    tag: str
    attrs: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def find(self, tag: str, cls: str = "") -> list[Node]:
        nodes = [child for child in self.children if isinstance(child, Node)]
        return [found for node in nodes for found in [*node.match(tag, cls), *node.find(tag, cls)]]

    def match(self, tag: str, cls: str) -> list[Node]:
        return [self] * (self.tag == tag and cls in ["", *self.attrs.get("class", "").split()])


class Reader(HTMLParser):
    """Builds a tree and refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("root", {})]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(node)
        if tag not in {"meta", "link", "input", "br"}:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(report) -> Node:
    reader = Reader()
    reader.feed(render(report))
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def row(method, steps, evaluations, valid, nll, entropy):
    quality = {"valid": valid, "nll": nll, "sample_entropy": entropy, "unique": 0.99}
    cost = {"evaluations": evaluations, "seconds": 0.01 * evaluations, "samples": 1024}
    return {"method": method, "steps": steps} | quality | cost


@pytest.fixture
def report() -> dict[str, Any]:
    words, sure = ["a", "dog", EVIL], [0.25, 0.5, 1.0]
    frames = [{"time": k / 4, "words": words[:], "confidence": sure} for k in range(5)]
    return {
        **{"title": "One step <b>", "summary": "It works & it is fast."},
        "facts": {"commit": "abc123", "seed": 20260101, "training": 3.14159},
        "reference": REFERENCE,
        "controls": CONTROLS,
        "rows": [
            *(row("FMLM", 2, 2, 0.6, 2.0, 2.95), row("FMLM", 1, 1, 0.4, 2.3, 2.9)),
            *(row("FLM", 1, 1, 0.0, 1.26, 0.5), row("FLM", 2, 2, 0.6, 5.0, 2.8)),
            row("Masked diffusion", 1, 1, 0.01, 5.1, 3.1),
            row("Autoregressive", "full", 24, 0.97, 1.3, 3.0),
            {"method": EVIL, "steps": 4, "valid": None, "nll": math.nan},
        ],
        "curves": {
            "FMLM": [[s, 10 ** (-s / 500)] for s in range(1, 2001)],
            "FLM": [[0, 5.0], [10, math.inf], [20, 4.0]],
        },
        "samples": {
            "FMLM @ 1": [{"text": EVIL, "valid": False}, {"text": "a dog runs", "valid": True}],
            "FLM @ full": [{"text": f"text {i}", "valid": None} for i in range(9)],
        },
        "film": {"title": "From noise", "frames": frames},
    }


def rows_of(page: Node) -> dict[tuple[str, str], list[str]]:
    """(group, method) -> the cells of the table of results."""
    found, group = {}, ""
    for line in page.find("table", "results")[0].find("tr"):
        name, cells = line.find("th")[0].text, [cell.text for cell in line.find("td")]
        group = group if cells else name
        found |= {(group, name): cells} if cells else {}
    return found


def test_every_row_is_in_the_table_and_what_was_not_measured_is_a_dash(report):
    found = rows_of(read(report))
    assert [f"{group}: {method}" for group, method in found] == [
        *("To compare with: The language itself", "To compare with: Tokens drawn independently"),
        *("1 step: FMLM", "1 step: FLM", "1 step: Masked diffusion"),
        *("2 steps: FMLM", "2 steps: FLM", f"4 steps: {EVIL}", "Full: Autoregressive"),
    ]
    full = [cell.replace("\u202f", " ") for cell in found["Full", "Autoregressive"]]
    assert full == ["97.0 %", "1.30", "3.00", "99.0 %", "24", "240 ms", "1024"]
    assert found["To compare with", "Tokens drawn independently"][0].startswith("<0.1")
    assert found["4 steps", EVIL] == ["–not measured"] * 7


def test_the_best_few_step_entries_are_marked_and_collapse_does_not_win(report):
    page = read(report)
    marked = {}
    for line in page.find("tr"):
        best = [cell.text.replace("\u202f", " ") for cell in line.find("td", "best")]
        marked.setdefault(line.find("th")[0].text, []).append(best)
    # FLM's single step has the NLL nearest to the language, but it says one word all the time.
    assert marked["FLM"][0] == []
    assert marked["FMLM"] == [["40.0 %", "2.30", "2.90"], ["2.00", "2.95"]]  # valid ties at 2 steps
    assert marked["Masked diffusion"] == [["3.10"]]
    assert marked["Autoregressive"] == [[]]
    assert [cell.text for cell in page.find("td", "low")] == ["↓ 0.50 far too low"]


def test_headers_have_a_scope_and_charts_a_name(report):
    page = read(report)
    assert all(th.attrs.get("scope") in {"col", "row", "rowgroup"} for th in page.find("th"))
    ids = [n.attrs["id"] for tag in ("title", "desc") for n in page.find(tag) if "id" in n.attrs]
    assert len(ids) == len(set(ids)) == 2 * len(page.find("svg", "chart"))
    for svg in page.find("svg", "chart"):
        assert svg.attrs["role"] == "img"
        assert set(svg.attrs["aria-labelledby"].split()) <= set(ids)
    assert "FMLM: 1 step 40.0" in page.find("desc")[0].text


def test_text_is_escaped(report):
    page = read(report)
    assert page.find("h1")[0].text == "One step <b>"
    assert [s.text for s in page.find("li", "invalid")[0].find("span", "text")] == [EVIL]


def test_nothing_comes_from_outside(report):
    assert not re.search(r"https?:|//\w|url\(|@import", render(report))
    page = read(report)
    assert not [n for tag in ("img", "a", "iframe", "object") for n in page.find(tag)]
    assert [n.attrs for n in page.find("script")] == [{}]
    assert [n.attrs["href"] for n in page.find("link")] == ["data:,"]
    policy = page.find("meta")[1].attrs["content"]
    digest = hashlib.sha256(page.find("script")[0].text.encode()).digest()
    assert policy.startswith("default-src 'none'")
    assert f"'sha256-{b64encode(digest).decode()}'" in policy


def points(path: Node) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path.attrs["d"])]


def test_lines_stay_in_their_view_box_and_follow_the_data(report):
    charts = read(report).find("svg", "chart")
    assert len(charts) == 3 + 2
    for svg in charts:
        _, _, width, height = map(float, svg.attrs["viewbox"].split())
        kinds = ("line", "whisker", "rule", "grid", "thread")
        places = [p for kind in kinds for path in svg.find("path", kind) for p in points(path)]
        marks = [re.findall(r"[-\d.]+", m.attrs["transform"]) for m in svg.find("path", "mark")]
        places += [(float(x), float(y)) for x, y in marks]
        places += [(float(t.attrs["x"]), float(t.attrs["y"])) for t in svg.find("text")]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
        for line in svg.find("path", "line"):
            assert all(a[0] <= b[0] for a, b in itertools.pairwise(points(line)))
    (falling,) = charts[3].find("path", "line")
    assert len(points(falling)) <= 240
    assert all(a[1] < b[1] for a, b in itertools.pairwise(points(falling)))  # y points down
    left, right = points(charts[0].find("path", "line")[0])
    assert left[1] > right[1]


def test_samples_are_marked_in_words(report):
    page = read(report)
    assert [m.text for m in page.find("span", "mark-word")] == ["✗ invalid", "✓ valid"]
    assert "1 of 2 valid" in page.find("h3")[0].text
    assert page.find("h3")[1].text == "FLMfull"
    assert [s.text for s in page.find("summary")] == ["5 more", "All 5 frames"]


def test_the_film_needs_no_script(report):
    film = next(n for n in read(report).find("div") if n.attrs.get("id") == "film")
    assert "open" in film.find("details")[0].attrs
    assert "hidden" in film.find("div", "player")[0].attrs
    times = [time.text for time in film.find("tbody")[0].find("th")]
    assert times == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    words = film.find("td", "words")[1].find("span", "word")
    assert [w.text for w in words] == ["a", "dog", EVIL]
    assert [w.attrs["style"] for w in words] == ["--p:0.25", "--p:0.50", "--p:1.00"]


def test_tokens_of_a_word_stand_together(report):
    frame = {"time": 1.0, "words": ["un", "like", " ly", "\n", " "], "confidence": [0.5] * 5}
    report["film"]["frames"] = [frame]
    page = read(report)
    (cell,) = page.find("td", "words")
    assert cell.text == "unlike ly ⏎ ␣"
    assert [w.text for w in cell.find("span", "word")] == ["un", "like", "ly", "⏎", "␣"]
    assert page.find("p", "stage")
    assert not page.find("p", "cells")
    report["film"]["frames"] = [frame | {"words": ["a", " b", " c", " d", " e"]}]
    assert read(report).find("p", "cells")


def test_the_reader_chooses_whose_texts_to_see(report):
    page = read(report)
    (chosen,) = page.find("p", "chosen")
    assert "hidden" in chosen.attrs  # without a script all are there
    names = [option.text for option in chosen.find("option")]
    assert names == ["all samplers", "FMLM @ 1", "FLM @ full"]
    assert len(page.find("section", "card")) == 2


@pytest.mark.parametrize("low", [0.0, 2.341, 99.7])
@pytest.mark.parametrize("span", [1e-4, 0.003, 0.04, 7.0])
def test_marks_of_a_narrow_range_read_differently(low, span):
    for axis in (linear_axis(low, low + span, ""), decades_axis([1 + low, 1 + low + span], "")):
        labels = [label for _, label in axis.ticks]
        assert len(labels) == len({*labels}) >= 2


def test_texts_by_kind_have_a_table(report):
    kinds = [{"kind": "no carry", "texts": 9, "valid": 1.0}, {"kind": "long", "texts": 0}]
    with pytest.raises(Refusal, match="valid"):
        read(report | {"rows": [report["rows"][0] | {"kinds": kinds}]})
    kinds[1]["valid"] = None
    page = read(report | {"rows": [report["rows"][0] | {"kinds": kinds}]})
    (table,) = [t for t in page.find("table") if "no carry" in t.text]
    assert [cell.text for cell in table.find("td")][1:] == ["100.0% of 9", "–"]


def test_an_ordinary_corpus_needs_little():
    row = {"method": "FMLM", "steps": 1, "nll": 4.78, "sample_entropy": 4.16}
    reference = {"nll": 4.0, "sample_entropy": 4.31, "entropy": None}
    told = {"title": "LM1B", "summary": "One step.", "judge": "gpt2-large", "film": None}
    page = read(told | {"rows": [row], "reference": reference})
    assert ("To compare with", "Real text") in rows_of(page)
    assert len(page.find("svg", "chart")) == 2
    assert len(page.find("h2")) == 3
    assert "under gpt2-large" in page.text


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda r: r.pop("summary"), "report lacks summary"),
        (lambda r: r["rows"][3].update(vaild=1.0), r"report.rows\[3\] has no place for vaild"),
        (lambda r: r["rows"][0].update(steps="many"), "whole number"),
        (lambda r: r["film"]["frames"][2]["words"].pop(), r"frames\[2\] needs one confidence"),
    ],
)
def test_a_misshapen_report_is_refused(report, spoil, told, tmp_path):
    spoil(report)
    with pytest.raises(Refusal, match=told):
        write_report(report, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_report(json.loads(json.dumps(report)), path)
    assert path.read_text(encoding="utf-8") == render(report)
    path.write_text("before")
    monkeypatch.delattr(os, "replace")
    with pytest.raises(AttributeError):
        write_report(report, path)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.read_text() == "before"


def test_it_imports_the_standard_library_only():
    code = "import sys, flowlm.evaluate.report; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@given(st.lists(st.floats(0, 200), max_size=8))
def test_labels_are_spread_in_order(wanted):
    places = spread(wanted, 15, 0, 200)
    ranked = [places[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
    assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise([-15, *ranked, 215]))


@given(st.floats(-100, 100), st.floats(1e-3, 1000))
def test_axes_hold_their_data(low, span):
    axis = linear_axis(low, low + span, "")
    labels = [label for _, label in axis.ticks]
    assert len({*labels}) == len(labels)
    for value, label in axis.ticks:
        assert float(label) == pytest.approx(value, abs=2e-3 * span)
    assert -1e-9 <= axis.at(low) <= axis.at(low + span) <= 1 + 1e-9
    assert 3 <= len(axis.ticks) <= 8
    for log in (powers_axis([1, 1 + span], ""), decades_axis([span, 30 * span], "")):
        assert log.ticks
        assert all(-1e-9 <= log.at(value) <= 1 + 1e-9 for value, _ in log.ticks)


def test_thinning_keeps_the_mean():
    assert thinned([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], 2) == [(0.5, 2.0), (2.5, 6.0)]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1])
def test_text_stands_out_from_the_paper(theme):
    style = resources.files("flowlm.evaluate.report").joinpath("style.css").read_text("utf-8")
    block = style.split(":root {")[1 + theme].split("}")[0]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
    assert {f"s{i}" for i in range(7)} < set(colours)
    for name in set(colours) - {"paper", "panel", "hair", "tint"}:
        for ground in ("paper", "panel"):
            dark, light = sorted(luminance(colours[k]) for k in (name, ground))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


def test_cross_entropy_over_time_is_drawn_where_it_is_known(report):
    assert "Held-out cross-entropy over time" not in render(report)
    shown = render(report | {"levels": {"FLM": [[0.05, 5.5], [0.95, 0.25]], "FMLM": []}})
    assert "Held-out cross-entropy over time" in shown
    assert "5.5 at 0.05" in shown
