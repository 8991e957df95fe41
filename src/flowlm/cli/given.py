"""Given text of `flowlm sample`: a prompt, a file of prompts, or a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowlm.checks import whole
from flowlm.cli import options
from flowlm.errors import Refusal

if TYPE_CHECKING:
    from flowlm.model.language_model import LanguageModel
    from flowlm.model.prompts import Prompt


@dataclass(frozen=True)
class Given:
    """Text that is given for `num` texts: one for all, one for each, or a template for all."""

    num: int
    prompt: str | list[str] | None = None
    infill: str | None = None

    def for_model(self, model: LanguageModel, length: int | None) -> Prompt | None:
        """The prompt that the model's `batches` and `film` take."""
        if self.infill is None:
            return self.prompt
        return model.template(self.infill, self.num, length)


def given(chosen: options.Sample) -> Given:
    """The given text of the options, read before torch is imported."""
    ways = {"--prompt": chosen.prompt, "--prompts": chosen.prompts, "--infill": chosen.infill}
    stated = [name for name, value in ways.items() if value is not None]
    if len(stated) > 1:
        raise Refusal(f"{' and '.join(stated)} say what is given in two ways: choose one of them.")
    if chosen.length is not None:
        whole("--length", chosen.length, 1)
        if chosen.film:
            raise Refusal("--film shows texts of the model's own length: leave --length out.")
    if chosen.prompts is None:
        return Given(chosen.num, chosen.prompt, chosen.infill)
    try:
        lines = chosen.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{chosen.prompts} cannot be read as text ({error}): give a file with a prompt a line."
        ) from error
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if empty or not lines:
        where = f"an empty line, number {empty[0]}" if empty else "no line"
        raise Refusal(f"{chosen.prompts} has {where}: give a prompt a line.")
    each = [line for line in lines for _ in range(chosen.num)]
    return Given(len(each), each)
