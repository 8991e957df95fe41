"""The written parts of the page: samples, the film, what the numbers mean, the facts."""

from __future__ import annotations

from flowlm.evaluate.report.markup import (
    Html,
    element,
    joined,
    steps_text,
    whole,
)
from flowlm.evaluate.report.schema import Frame, Report, Sample

_OPEN = 4
"""Texts of one sampler that are shown at once; the rest unfolds."""


def samples(report: Report) -> Html:
    """Texts by sampler, each marked as valid or not."""
    cards = [_card(key, texts) for key, texts in (report.get("samples") or {}).items() if texts]
    return element("div", *cards, class_="cards") if cards else Html("")


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
    stage = element("p", _words(shown["frames"][-1]), class_="stage", style=f"--n:{longest}")
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


_FILM = "The line under a word, and its ink, show the probability that the network gives it."


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
    words = (
        element("span", word, class_="word", style=f"--p:{min(max(sure, 0.0), 1.0):.2f}")
        for word, sure in pairs
    )
    return joined(words, " ")


def definitions(report: Report) -> Html:
    """What each number is, exactly."""
    judge = report.get("judge")
    terms = {"Steps, evaluations": _STEPS}
    if not judge:
        terms |= {"Valid": _VALID, "Words drawn independently": _CHANCE}
    terms |= {
        "NLL": _NLL_JUDGE.format(judge=judge) if judge else _NLL_LANGUAGE,
        "Entropy": _ENTROPY,
        "Unique": "Different texts as a share of all texts of the row.",
        "Time": _TIME,
    }
    return element("dl", *_pairs(terms), class_="terms")


_STEPS = (
    "Steps are the moves a sampler makes from noise to text; evaluations are the forward passes "
    "of the network that one text costs."
)
_VALID = (
    "The share of texts that are sentences of the language, that is, to which it gives a positive "
    "probability. This is decided exactly, not by a model."
)
_NLL_LANGUAGE = (
    "The negative log-likelihood per token, in nats, of the generated texts under the language "
    "itself, heard through a channel that replaces each word, with a small probability, by one "
    "drawn from the whole vocabulary. So it is exact, and finite for wrong sentences too. It is "
    "not the likelihood of the trained model. A perfect model scores what the language itself "
    "scores; less is not better but narrower."
)
_NLL_JUDGE = (
    "The negative log-likelihood per token, in nats, of the generated texts under {judge}. It is "
    "not the likelihood of the trained model. What real text scores is the aim; less is not better "
    "but narrower."
)
_ENTROPY = (
    "Sample entropy: the entropy, in nats, of the word frequencies within one text, averaged over "
    "texts. Repetition lowers it and buys a low NLL, so the two are one result: compare NLL at "
    "equal entropy."
)
_TIME = (
    "Wall-clock time of sampling, per text: that of a batch over its texts, the median of the "
    "batches of a row, after a warm-up."
)
_CHANCE = (
    "A control without a model: each word is drawn alone, with the exact probability that it has "
    "at its place. A sampler that gets single words right and ignores what binds them scores this."
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
