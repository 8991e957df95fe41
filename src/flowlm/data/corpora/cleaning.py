"""Text as its corpus publishes it, turned into text as people write it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# In this order, which matters: a rule takes spaces that a later one would need. These are the rules
# that published results on the One Billion Word benchmark share (Lou et al. 2024 and those after
# them), faults included: numbers are only comparable on the same text.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"http : / / ", "http://"),
        (r"https : / / ", "https://"),
        (r" '(\w+)", r"'\1"),
        (r" (\w+) \. ", r" \1. "),
        (r" (\w+) \.$", r" \1."),
        (r" \? ", "? "),
        (r" \?$", "?"),
        (r" ! ", "! "),
        (r" !$", "!"),
        (r" , ", ", "),
        (r" : ", ": "),
        (r" ; ", "; "),
        (r" / ", "/"),
        (r'" ([^"]+) "', r'"\1"'),
        (r"' ([^']+) '", r"'\1'"),
        (r"\( ([^()]+) \)", r"(\1)"),
        (r"\[ ([^\[\]]+) \]", r"[\1]"),
        (r"([$£]) ", r"\1"),
    )
)

_HEADING = re.compile(r" ?= (?!=)[^\n]*(?<!=) = ?\s*")


def detokenised(sentence: str) -> str:
    """A sentence of the One Billion Word benchmark without the spaces around its punctuation."""
    for pattern, replacement in _RULES:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def articles(lines: Iterator[str]) -> Iterator[tuple[str, int]]:
    """The articles of WikiText, which is published line by line, each with the lines read.

    An article begins with a heading of the first level, ` = Title = `.
    """
    article: list[str] = []
    count = 0
    for line in lines:
        if _HEADING.fullmatch(line) and any(part.strip() for part in article):
            yield "".join(article).strip(), count
            article = []
        article.append(line)
        count += 1
    yield "".join(article).strip(), count
