"""A page that stands alone: one file with the page, the engine and a model."""

from __future__ import annotations

import base64
import hashlib
import html
import posixpath
import re
from importlib.resources import files

ENTRY = "engine/writer.js"
"""The script that starts a page that stands alone."""

EXPORT = re.compile(r"^export (?:async )?(?:function\*?|class|const) (\w+)", re.MULTILINE)
IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)


def source(name: str) -> str:
    """A file of the page, by its path in it."""
    return files("flowlm.page").joinpath(name).read_text(encoding="utf-8")


def joined(name: str) -> str:
    """A script and all that it imports as one script, in which each file has a scope of its own."""
    done: list[str] = []
    parts: list[str] = []

    def visit(name: str) -> None:
        if name in done:
            return
        done.append(name)
        text = source(name)
        for other in IMPORT.findall(text):
            visit(posixpath.normpath(posixpath.join(posixpath.dirname(name), other)))
        parts.append(_scoped(text))

    visit(name)
    return "".join(parts)


def _scoped(text: str) -> str:
    names = ", ".join(EXPORT.findall(text))
    own = IMPORT.sub("", EXPORT.sub(lambda found: found[0].removeprefix("export "), text))
    if not names:
        return f"(() => {{\n{own}}})();\n"
    return f"const {{ {names} }} = (() => {{\n{own}return {{ {names} }};\n}})();\n"


def page_alone(title: str, facts: str, weights: str) -> str:
    """The page as one file of HTML that runs its own scripts alone, and asks for nothing.

    `facts` is the JSON that the engine reads of the model, `weights` its weights as it reads them
    (engine/model.js).
    """
    style, script = source("style.css"), joined(ENTRY)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    )
    quoted = facts.replace("<", "\\u003c")  # so that no word ends the script
    body = (
        f'<script id="facts" type="application/json">{quoted}</script>\n'
        f'<script id="weights" type="text/plain">{weights}</script>\n'
        f'<script type="module">{script}</script>\n'
    )
    page = source("index.html")
    page = _replaced(page, r"<title>.*?</title>\n", f"<title>{html.escape(title)}</title>\n{head}")
    page = _replaced(page, r'<link rel="stylesheet"[^>]*>\n', "")
    page = _replaced(page, r'<script type="module" src="[^"]*"></script>\n', "")
    return _replaced(page, r"(?=</body>)", body)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _replaced(page: str, pattern: str, new: str) -> str:
    page, count = re.subn(pattern, lambda _: new, page, count=1)
    assert count == 1, f"index.html has no {pattern}"
    return page
