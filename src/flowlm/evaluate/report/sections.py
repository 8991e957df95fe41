"""The written parts of the page: samples, the film, what the numbers mean, the facts."""

from __future__ import annotations

import math

from flowlm.evaluate.held_out import described
from flowlm.evaluate.measures import CHANCE, KINDS, MEASURES, present
from flowlm.evaluate.report.markup import (
    Html,
    element,
    joined,
    steps_text,
    whole,
)
from flowlm.evaluate.report.schema import Frame, Report, Sample, aim

_OPEN = 4
"""Texts of one sampler that are shown at once; the rest unfolds."""


def samples(report: Report) -> Html:
    """Texts by sampler, each marked as valid or not."""
    cards = [_card(key, texts) for key, texts in (report.get("samples") or {}).items() if texts]
    if not cards:
        return Html("")
    names = [key for key, texts in (report.get("samples") or {}).items() if texts]
    options = [element("option", name) for name in ("all samplers", *names)]
    chosen = element("label", "Texts of ", element("select", *options))
    return joined(
        [element("p", chosen, class_="chosen", hidden=""), element("div", *cards, class_="cards")]
    )


def _card(key: str, texts: list[Sample]) -> Html:
    method, _, steps = key.rpartition(" @ ")
    title = [method, element("span", steps_text(steps), class_="aside")] if method else [key]
    judged = [sample.get("valid") for sample in texts if sample.get("valid") is not None]
    if judged:
        count = f"{sum(map(bool, judged))} of {len(judged)} valid"
        title.append(element("span", count, class_="aside right"))
    head = element("h3", *title)
    parts = [head, element("ul", *map(_text, texts[:_OPEN]))]
    if rest := texts[_OPEN:]:
        summary = element("summary", f"{len(rest)} more")
        parts.append(element("details", summary, element("ul", *map(_text, rest))))
    return element("section", *parts, class_="card")


def _text(sample: Sample) -> Html:
    valid = sample.get("valid")
    if valid is None:
        return element("li", element("span", sample["text"], class_="text"))
    mark = "✓ valid" if valid else "✗ invalid"
    return element(
        "li",
        element("span", mark, class_="mark-word"),
        element("span", sample["text"], class_="text"),
        class_="valid" if valid else "invalid",
    )


def held_out(report: Report) -> Html:
    """Nats of held-out text by method, and the same as perplexity and bits."""
    rows = report.get("held_out") or []
    if not rows:
        return Html("")
    with_bytes = any(row.get("bits_per_byte") is not None for row in rows)
    heads = ["Method", "nats/token", "±", "perplexity", "bits/token", "What it is"]
    if with_bytes:
        heads.insert(5, "bits/byte")
    lines = []
    for row in rows:
        nats, error, per_byte = row["nats"], row["error"], row.get("bits_per_byte")
        cells = [
            f"{nats:.3f}", "–" if error is None else f"{error:.3f}", f"{math.exp(nats):.2f}",
            f"{nats / math.log(2):.3f}",
        ]  # fmt: skip
        if with_bytes:
            cells.append("–" if per_byte is None else f"{per_byte:.3f}")
        about = element("td", described(row), class_="about")
        name = element("th", row["method"], scope="row")
        lines.append(element("tr", name, *(element("td", cell) for cell in cells), about))
    head = element("tr", *(element("th", name, scope="col") for name in heads))
    table = element("table", element("thead", head), element("tbody", *lines), class_="results")
    return element("div", table, class_="scroll")


def kinds(report: Report) -> Html:
    """Valid texts by kind of text, where a task has kinds."""
    rows = [row for row in report["rows"] if row.get(KINDS)]
    if not rows:
        return Html("")
    heads = ["Method", "steps", *(entry["kind"] for entry in rows[0][KINDS])]
    lines = []
    for row in rows:
        cells = [
            "–" if entry["valid"] is None else f"{entry['valid']:.1%} of {entry['texts']:,}"
            for entry in row[KINDS]
        ]
        name = element("th", row["method"], scope="row")
        cells = (element("td", cell) for cell in (steps_text(str(row["steps"])), *cells))
        lines.append(element("tr", name, *cells))
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    table = element("table", head, element("tbody", *lines), class_="results")
    return element("div", table, class_="scroll")


def differences(report: Report) -> Html:
    """Paired differences to the first model, those that an interval tells from 0 in bold."""
    entries = report.get("differences") or []
    if not entries:
        return Html("")
    heads = ("Model", "less", "steps", "measure", "difference", "95 %")
    rows = []
    for entry in entries:
        measure, (low, high) = MEASURES[entry["key"]], entry["interval"]
        value = f"{entry['difference']:+.4g}"
        decided = element("strong", value) if low > 0 or high < 0 else value
        cells = (
            entry["than"], str(entry["steps"]), measure.heading, decided,
            f"{low:+.4g} to {high:+.4g}",
        )  # fmt: skip
        name = element("th", entry["method"], scope="row")
        rows.append(element("tr", name, *(element("td", cell) for cell in cells)))
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    table = element("table", head, element("tbody", *rows), class_="results")
    return element("div", table, class_="scroll")


def film(report: Report) -> Html:
    """One text being written: a stage with a slider, over a table that needs no script."""
    shown = report.get("film")
    if shown is None or not shown["frames"]:
        return Html("")
    rows = [
        element(
            "tr",
            element("th", f"{frame['time']:.2f}", scope="row"),
            element("td", _words(frame), class_="words"),
        )
        for frame in shown["frames"]
    ]
    head = element("tr", element("th", "τ", scope="col"), element("th", "Text", scope="col"))
    table = element("table", element("thead", head), element("tbody", *rows))
    longest = max((len(word) for frame in shown["frames"] for word in frame["words"]), default=1)
    kind = "stage cells" if _of_words(shown["frames"]) else "stage"
    stage = element("p", _words(shown["frames"][-1]), class_=kind, style=f"--n:{longest}")
    return element(
        "div",
        element("p", shown["title"], " ", element("span", _FILM), class_="film-title"),
        element("div", stage, _controls(len(rows)), class_="player", hidden=""),
        element(
            "details",
            element("summary", f"All {len(rows)} frames"),
            element("div", table, class_="frames"),
            open="",
        ),
        id="film",
    )


_FILM = (
    "The line under a token, and its ink, show the probability that the network gives it; tokens "
    "of one word stand side by side."
)


def _controls(frames: int) -> Html:
    slider = element(
        "input",
        type="range",
        min=0,
        max=frames - 1,
        value=frames - 1,
        step=1,
        aria_label="time from noise to text",
    )
    button = element("button", "Play", type="button")
    return element("div", button, slider, element("output", "τ = 1.00"), class_="controls")


def _words(frame: Frame) -> Html:
    pairs = zip(frame["words"], frame["confidence"], strict=True)
    words = [
        element("span", _seen(word), class_="word", style=f"--p:{min(max(sure, 0.0), 1.0):.2f}")
        for word, sure in pairs
    ]
    # Tokens of one word stand side by side; a hair's breadth (style.css) tells them apart.
    starts = [word[:1].isspace() for word in frame["words"]]
    spaced = [Html(f" {word}") if start else word for word, start in zip(words, starts)]
    return joined(spaced)


def _seen(piece: str) -> str:
    """A token without the space in front of it; one that is nothing else, as a sign."""
    return piece.strip() or ("⏎" if "\n" in piece else "␣" if piece else "∅")


def _of_words(frames: list[Frame]) -> bool:
    """Whether every token is a word, so that each can have a cell of its own."""
    return all(
        piece[:1].isspace() and piece.strip() for frame in frames for piece in frame["words"][1:]
    )


def definitions(report: Report) -> Html:
    """The exact meaning of each number."""
    judge = report.get("judge")
    named = {"judge": judge or _LANGUAGE, "aim": aim(report).lower()}
    terms = {"Steps": _STEPS}
    controls = report.get("controls") or []
    for measure in present([*report["rows"], report.get("reference") or {}, *controls]):
        terms[measure.heading] = measure.definition.format_map(named)
    if any(row["method"] == CHANCE for row in controls):
        terms[CHANCE] = _CHANCE
    if controls:
        terms["To compare with"] = _CONTROLS
    return element("dl", *_pairs(terms), class_="terms")


_STEPS = "The moves that a sampler makes from noise to text."
_LANGUAGE = (
    "the language itself, heard through a channel that replaces each word, with a small "
    "probability, by one drawn from the whole vocabulary (so it is exact, and finite for wrong "
    "sentences too)"
)
_CONTROLS = (
    "Writers without a model, made of training text in milliseconds: each fools some measure, and "
    "is caught by another. A measure on which one of them is as good as a model says nothing of it."
)
_CHANCE = (
    "A control without a model: each token is drawn alone, with the exact probability that it has "
    "at its place. A sampler that gets single tokens right and ignores what binds them scores this."
)


def facts(report: Report) -> Html:
    """Where the numbers come from."""
    given = report.get("facts") or {}
    return element("dl", *_pairs({k: _fact(v) for k, v in given.items()}), class_="facts")


def _fact(value: str | float | int) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return whole(value) if isinstance(value, int) else f"{value:.4g}"


def _pairs(terms: dict[str, str]) -> list[Html]:
    return [
        element("div", element("dt", term), element("dd", meaning))
        for term, meaning in terms.items()
    ]
