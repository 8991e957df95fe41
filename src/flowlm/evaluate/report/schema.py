"""Shape of report.json, and a check of it at the door.

Every number may be null or absent where nothing was measured; the page then shows a dash.
"""

# No `from __future__ import annotations` here: it would hide which keys are required.
from collections.abc import Mapping, Set
from typing import Any, Literal, NotRequired, TypedDict, cast

from flowlm.errors import Refusal
from flowlm.evaluate.held_out import HeldOut
from flowlm.evaluate.measures import INTERVALS, JUDGES, KINDS, MEASURES, SPREAD

Steps = int | Literal["full"]
"""Steps of a sampler; "full" where the method itself says how many (one per word, say)."""


Row = Mapping[str, Any]
"""One sampler at one number of steps: `method`, its name on the page, `steps` (`Steps`), and the
figures that were measured, by the keys of `evaluate.measures.MEASURES`."""

Reference = Mapping[str, Any]
"""Figures of real text beside other real text, by the same keys, and `method`, the name of such
texts on the page. `entropy` is that of the task, in nats per token, where it is known."""


class Sample(TypedDict):
    """One generated text; `valid` is null where nobody can say."""

    text: str
    valid: NotRequired[bool | None]


class Frame(TypedDict):
    """One moment of a text: the likeliest token at each place and the probability it has."""

    time: float
    """tau, 0 for noise and 1 for text."""
    words: list[str]
    """What each token adds to the text: a space in front begins a word."""
    confidence: list[float]


class Film(TypedDict):
    """One text being written."""

    title: str
    frames: list[Frame]


class Frontier(TypedDict):
    """Quality and diversity of a sampler as one of its settings is turned."""

    method: str
    steps: Steps
    knob: str
    points: list[dict[str, float]]
    """Each with the `value` of the setting, `sample_entropy` and `nll`."""
    nll_at_real: NotRequired[float | None]
    """At the sample entropy of real text; null outside what is reached."""
    nearest: NotRequired[list[float] | None]
    """(sample entropy, nll) of the point nearest to it."""
    area: NotRequired[float | None]
    """Mean nats above real text, over entropies around its own."""
    reached: NotRequired[float]
    """The share of these entropies that is reached."""


class Difference(TypedDict):
    """A figure of one model less that of the first, over pairs of texts of one noise."""

    method: str
    than: str
    steps: Steps
    key: str
    difference: float
    interval: list[float]
    """95 %."""


class Report(TypedDict):
    """Everything the page shows."""

    title: str
    summary: str
    """The finding, in one sentence."""
    rows: list[Row]
    reference: NotRequired[Reference | None]
    controls: NotRequired[list[Row] | None]
    """Figures of writers without a model, each with `method`, its name on the page."""
    facts: NotRequired[dict[str, str | float | int] | None]
    """Commit, seed, machine, parameters, ...: shown as they are, in this order."""
    held_out: NotRequired[list[HeldOut] | None]
    """Likelihoods of held-out text, a row a model."""
    frontier: NotRequired[list[Frontier] | None]
    differences: NotRequired[list[Difference] | None]
    curves: NotRequired[dict[str, list[list[float]]] | None]
    """Training curves: method -> [[step, loss], ...]."""
    levels: NotRequired[dict[str, list[list[float]]] | None]
    """Cross-entropy of held-out text by clock time: method -> [[tau, nats per token], ...]."""
    samples: NotRequired[dict[str, list[Sample]] | None]
    """Texts by "method @ steps"."""
    film: NotRequired[Film | None]
    settings: NotRequired[dict[str, Any] | None]
    """What the figures depend on: steps, num, seed, weights, ...; not shown. Reports of other
    settings do not replace each other."""
    judge: NotRequired[str | None]
    """What scores `nll` where the language is not known exactly (gpt2-large, say)."""


class Kind(TypedDict):
    """Texts of one kind in a row, where a task has kinds: how many, and which share is valid."""

    kind: str
    texts: int
    valid: float | None


def aim(report: Mapping[str, Any]) -> str:
    """The name of the texts that a perfect model would write."""
    return (report.get("reference") or {}).get("method", "Real text")


def checked(report: Mapping[str, Any]) -> Report:
    """The same report, or a refusal that names the key which is missing, unknown or misshapen."""
    _keys(report, Report, "report")
    figures = {*MEASURES, INTERVALS, SPREAD, KINDS, JUDGES}
    _known(report.get("reference") or {}, set(), {"method", "entropy", *figures}, "reference")
    for i, row in enumerate(report.get("controls") or []):
        _known(row, {"method"}, figures, f"controls[{i}]")
    for i, row in enumerate(report["rows"]):
        _known(row, {"method", "steps"}, figures, f"rows[{i}]")
        for k, entry in enumerate(row.get(KINDS) or []):
            _keys(entry, Kind, f"report.rows[{i}].{KINDS}[{k}]")
        steps = row["steps"]
        if steps != "full" and not (isinstance(steps, int) and steps >= 1):
            raise Refusal(f'report.rows[{i}].steps is {steps!r}; give a whole number or "full".')
    for name, texts in (report.get("samples") or {}).items():
        for i, sample in enumerate(texts):
            _keys(sample, Sample, f"report.samples[{name!r}][{i}]")
    for i, row in enumerate(report.get("held_out") or []):
        _keys(row, HeldOut, f"report.held_out[{i}]")
    for i, entry in enumerate(report.get("frontier") or []):
        _keys(entry, Frontier, f"report.frontier[{i}]")
    for i, entry in enumerate(report.get("differences") or []):
        _keys(entry, Difference, f"report.differences[{i}]")
    film = report.get("film")
    if film is not None:
        _keys(film, Film, "report.film")
        for i, frame in enumerate(film["frames"]):
            _keys(frame, Frame, f"report.film.frames[{i}]")
            if len(frame["words"]) != len(frame["confidence"]):
                raise Refusal(f"report.film.frames[{i}] needs one confidence for each word.")
    return cast(Report, report)


def _keys(value: Mapping[str, Any], shape: Any, place: str) -> None:
    _known(value, shape.__required_keys__, shape.__optional_keys__, place.removeprefix("report."))


def _known(value: Mapping[str, Any], required: Set[str], optional: Set[str], place: str) -> None:
    place = "report" if place == "report" else f"report.{place}"
    if missing := sorted(required - value.keys()):
        raise Refusal(f"{place} lacks {', '.join(missing)}; add what is missing.")
    if unknown := sorted(value.keys() - required - optional):
        known = ", ".join(sorted(required | optional))
        raise Refusal(f"{place} has no place for {', '.join(unknown)}; it takes {known}.")
