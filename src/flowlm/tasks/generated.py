"""The demo's language as a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowlm.tasks.sentences import Sentences

if TYPE_CHECKING:
    from flowlm.core.oracle import Automaton


@dataclass(frozen=True)
class Generated(Sentences):
    """Sentences of the demo's language, for which everything can be measured exactly."""

    about: ClassVar[str] = "sentences of the demo's language"
    itself: ClassVar[str] = "The language itself"

    @property
    def length(self) -> int:
        """Words of a sentence, without making the language."""
        return 18

    @property
    def vocab(self) -> int:
        """Words of the language, without making it."""
        return 61

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the language."""
        from flowlm.data.language import demo_language

        return demo_language()[1]

    @property
    def language(self) -> Automaton:
        """The language."""
        from flowlm.data.language import demo_language

        return demo_language()[0]

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of the language and its words."""
        from flowlm.data.language import demo_fingerprint

        return demo_fingerprint()
