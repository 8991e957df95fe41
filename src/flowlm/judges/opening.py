"""Opening judges for the texts of a model."""

from __future__ import annotations

from collections.abc import Sequence

from flowlm.errors import Refusal
from flowlm.evaluate.judge import Judge
from flowlm.judges.causal import load_causal
from flowlm.judges.finding import find_judge, is_causal
from flowlm.judges.own import RunJudge, require_judge
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load


def open_judges(names: Sequence[str], model: LanguageModel) -> tuple[Judge, ...]:
    """The judges of these names, each once, on the model's device.

    A Refusal if one cannot read the texts of the model.
    """
    return tuple(_opened(name, model) for name in dict.fromkeys(names))


def _opened(name: str, model: LanguageModel) -> Judge:
    place, device = find_judge(name), str(model.device)
    if is_causal(place):
        if model.tokenizer is None:
            raise Refusal(f"{name} reads words, and the model has no tokenizer: give --tokenizer.")
        return load_causal(place, name, model.tokenizer.plain, device)
    judge = load(place, device)
    require_judge(judge, model)
    return RunJudge(name, judge.fingerprint, judge)
