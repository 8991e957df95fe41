"""Opening judges for the texts of a model."""

from __future__ import annotations

from collections.abc import Sequence

from flowlm.errors import Refusal
from flowlm.evaluate.judge import Judge
from flowlm.judges.causal import causal_judge
from flowlm.judges.finding import FoundJudge, find_judge
from flowlm.judges.own import RunJudge, require_judge
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load


def open_judges(names: Sequence[str], model: LanguageModel) -> tuple[Judge, ...]:
    """The judges of these names, on the model's device.

    A Refusal if one cannot read the texts of the model, or two are called the same.
    """
    found = [find_judge(name) for name in names]
    called = [judge.name for judge in found]
    if double := [name for name in called if called.count(name) > 1]:
        raise Refusal(f"Two judges are called {double[0]}: name every --judge once, or rename one.")
    return tuple(_opened(judge, model) for judge in found)


def _opened(found: FoundJudge, model: LanguageModel) -> Judge:
    assert model.tokenizer is not None
    if found.foreign:
        return causal_judge(found.place, found.name, model.tokenizer.plain, model.device)
    judge = load(found.place, str(model.device))
    require_judge(judge, model)
    return RunJudge(found.name, judge.fingerprint, judge)
