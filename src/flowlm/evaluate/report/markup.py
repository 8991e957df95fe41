"""Text and numbers as HTML: everything is escaped unless it is already `Html`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable

from flowlm.evaluate.measure import Form

_VOID = frozenset({"br", "input"})
THIN = "\u202f"  # a narrow space that does not break


class Html(str):
    """Text that is markup already, built by `element`."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float | None) -> Html:
    """<tag attributes>children</tag>, escaped; `class_` is class, `aria_label` is aria-label.

    An attribute that is None is left out; one that is empty stands alone.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        if value != ""
        else f" {key.rstrip('_').replace('_', '-')}"
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after another, each escaped unless it is markup."""
    return Html(
        between.join(part if isinstance(part, Html) else html.escape(part) for part in parts)
    )


def spoken(text: str) -> Html:
    """Words for who hears the page, not for who sees it."""
    return element("span", text, class_="spoken")


def measured(value: float | None) -> float | None:
    """The value, or None for what is no number (NaN is not a measurement)."""
    return None if value is None or math.isnan(value) else value


def percent(share: float) -> str:
    """A share as a percentage, one decimal place; what is above 0 never reads as 0."""
    if 0 < share < 0.0005:
        return f"<0.1{THIN}%"
    return f"{100 * share:.1f}{THIN}%"


def nats(value: float) -> str:
    """Two decimal places; infinity as its sign."""
    return "∞" if math.isinf(value) else f"{value:.2f}"


def number(value: float) -> str:
    """Three significant digits."""
    return "∞" if math.isinf(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Two significant digits, in the unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_two_digits(seconds / size)}{THIN}{unit}"
    return f"{_two_digits(seconds / 1e-6)}{THIN}µs"


def _two_digits(value: float) -> str:
    if value < 10:
        return f"{value:.1f}"
    return f"{value:.0f}"


def whole(value: float) -> Html:
    """A whole number with its thousands set apart by space that is not copied with it."""
    digits = str(round(value))
    if len(digits) > 4:
        digits = re.sub(r"(?<=\d)(?=(\d{3})+$)", "<i></i>", digits)
    return element("span", Html(digits), class_="n")


FORMS: dict[Form, Callable[[float], str]] = {
    "share": percent, "nats": nats, "number": number, "seconds": duration, "count": whole,
}  # fmt: skip
"""How the page writes values."""


def steps_text(steps: int | str) -> str:
    """1 step, 8 steps, full."""
    if str(steps) == "full":
        return "full"
    return f"{steps} step" if str(steps) == "1" else f"{steps} steps"
