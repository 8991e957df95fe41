"""The documentation site: its links lead somewhere, and every page and name of it is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURED = (ROOT / "mkdocs.yml").read_text("utf-8")


def prose(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Where one can land on a page: its headings, as both GitHub and the site name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s", "-", heading) for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), f"{page.name} links to {target}"
        inside = other.resolve().is_relative_to(ROOT / "docs")
        assert page.parent == ROOT or inside, f"{target} of {page.name} is not part of the site"
        if anchor:
            assert anchor in anchors(other), f"{target} has no such heading"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", CONFIGURED, re.MULTILINE)
    there = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[2:]]
    assert sorted(listed) == sorted(there)


def test_the_table_of_the_readme_is_that_of_the_demo() -> None:
    rows = re.findall(r"^\| .* \|$", PAGES[0].read_text("utf-8"), re.MULTILINE)
    measured = [row for row in rows if " % / " in row]
    assert len(measured) == 5
    assert "\n".join(measured) in (ROOT / "docs" / "demo.md").read_text("utf-8")


def test_the_readme_is_short() -> None:
    """It says where to go; what is longer has a page in docs."""
    assert len(PAGES[0].read_text("utf-8").splitlines()) <= 110


def test_names_of_the_reference_are_there() -> None:
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        text = page.read_text("utf-8")
        for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert attribute in vars(importlib.import_module(module)), name


def test_equations_name_functions_that_are_there() -> None:
    text = (ROOT / "docs" / "method.md").read_text("utf-8")
    named = set(re.findall(r"\b((?:core|methods)\.[a-z_.]*\w+)", text, re.IGNORECASE))
    assert {"core.interpolate", "core.velocity", "core.jump", "core.step"} <= named
    for name in named:
        module, _, attribute = f"flowlm.{name}".rpartition(".")
        try:
            importlib.import_module(f"flowlm.{name}")
        except ModuleNotFoundError:
            assert getattr(importlib.import_module(module), attribute), name
