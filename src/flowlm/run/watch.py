"""Whoever is told how far an evaluation is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Watch(Protocol):
    """Whoever shows how far an evaluation is."""

    def say(self, sentence: str) -> None:
        """Something worth knowing."""

    def work(self, evaluations: int) -> None:
        """Evaluations of the network that are done, each for one text."""

    def row(self, row: dict[str, Any]) -> None:
        """A row that is measured."""
