"""One setting of a sampler, turned: the frontier of quality against diversity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from flowlm.errors import Refusal
from flowlm.evaluate import frontier
from flowlm.evaluate.judge import Reader
from flowlm.evaluate.measures import MEASURES, summed
from flowlm.evaluate.real import RealText
from flowlm.model.language_model import LanguageModel
from flowlm.run import assess
from flowlm.run.assess import Steps
from flowlm.sampling import Sampler


def require_knob(knob: str, sampler: Sampler) -> None:
    """Refuse a knob that the sampler has not."""
    known = [field.name for field in fields(sampler) if field.name in frontier.VALUES]  # pyright: ignore[reportArgumentType]
    if knob not in known:
        raise Refusal(
            f"--frontier {knob} is no setting of the sampler {type(sampler).__name__}: "
            + (f"take {' or '.join(known)}." if known else "choose another --sampler.")
        )


def sweep(
    model: LanguageModel, sampler: Sampler, knob: str, steps: Steps, num: int, seed: int,
    readers: Sequence[Reader], real: RealText | None, reference: Mapping[str, Any],
    done: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    """Quality and diversity at every value of the knob, as an entry of a report."""
    rows = []
    for value in frontier.VALUES[knob]:
        turned = replace(sampler, **{knob: value})  # pyright: ignore[reportArgumentType]
        for _, written in assess.writings(
            model, (steps,), num, seed, turned, readers[:1], real, done
        ):
            found = {key: MEASURES[key].compute(written) for key in ("sample_entropy", "nll")}
            known = {key: value for key, value in found.items() if value is not None}
            rows.append({"value": value} | summed(known))
    return frontier.summed(model.experiment.method.label, steps, knob, rows, reference)
