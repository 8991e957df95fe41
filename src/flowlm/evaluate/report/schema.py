"""What a report says: the shape of report.json, and a check of it at the door.

Every number may be null or absent where nothing was measured; the page then shows a dash.
"""

# No `from __future__ import annotations` here: it would hide which keys are required.
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from flowlm.errors import Refusal

Steps = int | Literal["full"]
"""Steps of a sampler; "full" where the method itself says how many (one per word, say)."""


class Reference(TypedDict, total=False):
    """What the texts themselves score: the row that a perfect model would reach."""

    entropy: float | None
    """Entropy of the language, nats per token."""
    valid: float | None
    """Share of its sentences that are valid: 1.0."""
    nll: float | None
    """NLL of its own sentences, measured as in `Row`, nats per token."""
    sample_entropy: float | None
    """Sample entropy of its own sentences, measured as in `Row`, nats."""
    unique: float | None
    """Share of its sentences that are different, in as many as a row has samples."""
    marginals_valid: float | None
    """Share of valid sentences when words are drawn independently from their marginals."""
    marginals_nll: float | None
    """NLL of such sentences, nats per token."""
    marginals_sample_entropy: float | None
    """Sample entropy of such sentences, nats."""


class Row(TypedDict):
    """One sampler at one number of steps."""

    method: str
    """FMLM, FLM, Masked diffusion, Autoregressive, ...: its name on the page."""
    steps: Steps
    evaluations: NotRequired[int | None]
    """Network evaluations per text."""
    valid: NotRequired[float | None]
    """Share of texts that belong to the language."""
    nll: NotRequired[float | None]
    """Nats per token under the judge: the language through a noisy channel, or `Report.judge`."""
    sample_entropy: NotRequired[float | None]
    """Entropy of the words within one text, mean over texts, nats."""
    unique: NotRequired[float | None]
    """Different texts over all texts."""
    seconds: NotRequired[float | None]
    """Seconds per text: those of a batch over its texts, the median of the batches of a row."""
    samples: NotRequired[int | None]
    """How many texts the numbers are means over."""


class Sample(TypedDict):
    """One generated text; `valid` is null where nobody can say."""

    text: str
    valid: NotRequired[bool | None]


class Frame(TypedDict):
    """One moment of a text: the likeliest word at each place and the probability it has."""

    time: float
    """tau, 0 for noise and 1 for text."""
    words: list[str]
    confidence: list[float]


class Film(TypedDict):
    """One text being written."""

    title: str
    frames: list[Frame]


class Report(TypedDict):
    """Everything the page shows."""

    title: str
    summary: str
    """The finding, in one sentence."""
    rows: list[Row]
    reference: NotRequired[Reference | None]
    facts: NotRequired[dict[str, str | float | int] | None]
    """Commit, seed, machine, parameters, ...: shown as they are, in this order."""
    curves: NotRequired[dict[str, list[list[float]]] | None]
    """Training curves: method -> [[step, loss], ...]."""
    samples: NotRequired[dict[str, list[Sample]] | None]
    """Texts by "method @ steps"."""
    film: NotRequired[Film | None]
    settings: NotRequired[dict[str, Any] | None]
    """What the figures depend on: steps, num, seed, weights, ...; not shown. Reports of other
    settings do not replace each other."""
    judge: NotRequired[str | None]
    """What scores `nll` where the language is not known exactly (gpt2-large, say)."""


def checked(report: Mapping[str, Any]) -> Report:
    """The same report, or a refusal that names the key which is missing, unknown or misshapen."""
    _keys(report, Report, "report")
    _keys(report.get("reference") or {}, Reference, "report.reference")
    for i, row in enumerate(report["rows"]):
        _keys(row, Row, f"report.rows[{i}]")
        steps = row["steps"]
        if steps != "full" and not (isinstance(steps, int) and steps >= 1):
            raise Refusal(f'report.rows[{i}].steps is {steps!r}; give a whole number or "full".')
    for name, texts in (report.get("samples") or {}).items():
        for i, sample in enumerate(texts):
            _keys(sample, Sample, f"report.samples[{name!r}][{i}]")
    film = report.get("film")
    if film is not None:
        _keys(film, Film, "report.film")
        for i, frame in enumerate(film["frames"]):
            _keys(frame, Frame, f"report.film.frames[{i}]")
            if len(frame["words"]) != len(frame["confidence"]):
                raise Refusal(f"report.film.frames[{i}] needs one confidence for each word.")
    return cast(Report, report)


def _keys(value: Mapping[str, Any], shape: Any, place: str) -> None:
    required, optional = shape.__required_keys__, shape.__optional_keys__
    if missing := sorted(required - value.keys()):
        raise Refusal(f"{place} lacks {', '.join(missing)}; add what is missing.")
    if unknown := sorted(value.keys() - required - optional):
        known = ", ".join(sorted(required | optional))
        raise Refusal(f"{place} has no place for {', '.join(unknown)}; it takes {known}.")
