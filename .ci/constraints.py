"""Versions of everything that the tests run with, for `pip install -c constraints.txt`.

`make constraints` writes the file: what pyproject.toml requires with its extra `dev`, and what that
requires, as installed in this environment, without places and without marks of builds.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]
OWN = PROJECT["name"]


def main() -> None:
    """Print the file."""
    try:
        found = installed(frozenset({"dev"}))
    except metadata.PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed: make .venv/developed")
    print("# Made by `make constraints`: the versions that the tests ran with.")
    for name, version in sorted(found.items()):
        print(f"{name}=={version}")


def installed(extras: frozenset[str]) -> dict[str, str]:
    """Versions by name of all that this package with some of its extras requires; not its own."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [(OWN, extras)]
    while left:
        name, chosen = left.pop()
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        if name != OWN:
            found[name] = Version(metadata.version(name)).public
        left += required(requirements(name, chosen), chosen)
    return found


def requirements(name: str, extras: Iterable[str]) -> list[str]:
    """The lines in which a package states what it requires: of this one, those of pyproject.toml.

    What is installed of it may be older than the file.
    """
    if name != OWN:
        return metadata.requires(name) or []
    optional = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]


def required(lines: Iterable[str], extras: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Names and extras of what is wanted on this machine."""
    for line in lines:
        wanted = Requirement(line)
        marker = wanted.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


if __name__ == "__main__":
    main()
