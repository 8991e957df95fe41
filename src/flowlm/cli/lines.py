"""A text as one line."""

from __future__ import annotations

import re

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
"""What would end a line, and the backslash itself: so that the text can be had back."""


def one_line(text: str) -> str:
    """The text with escapes for its line breaks, carriage returns and backslashes."""
    return re.sub(r"[\\\n\r]", lambda found: ESCAPES[found[0]], text)
