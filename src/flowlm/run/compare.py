"""Several models side by side: the same noise, the same real text, differences text by text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.evaluate import reports
from flowlm.evaluate.measure import Value, drawn, figure, interval
from flowlm.evaluate.measures import MEASURES, values
from flowlm.run import assess, evaluation
from flowlm.run.assess import Steps
from flowlm.run.comparison import unfilled
from flowlm.run.evaluation import Evaluation, comparison_of, readers_of, swept
from flowlm.run.own_text import own_inputs
from flowlm.run.sweep import require_knob
from flowlm.run.watch import Watch

Measured = dict[Steps, dict[str, Value]]


def opened(
    runs: Sequence[str], steps: tuple[int, ...], num: int, seed: int, judges: Sequence[str],
    device: str, knob: str | None,
) -> list[Evaluation]:  # fmt: skip
    """A plan for each run; the judges are opened once, with the first, for all."""
    first = evaluation.opened(runs[0], steps, num, seed, judges, device, knob=knob)
    plans = [first]
    for run in runs[1:]:
        plan = evaluation.opened(run, steps, num, seed, device=device)
        if knob is not None:
            require_knob(knob, plan.sampler)
        plans.append(replace(plan, judges=first.judges, knob=knob))
    return plans


def compare(plans: Sequence[Evaluation], out: Path, watch: Watch) -> dict[str, Any]:
    """Measure every plan's model, and write one report into `out`; returns it.

    The first model is the one that others are compared with; its text and its judge judge all. A
    Refusal where models have other tokenizers, or write texts of another length.
    """
    first = plans[0]
    _require_alike(plans)
    names = {plan.run: f"{plan.model.experiment.method.label} ({plan.run})" for plan in plans}
    with reports.writing(out):
        inputs = own_inputs(first.run, first.model, watch)
        compared = comparison_of(first, inputs)
        readers = readers_of(first, compared)
        report: dict[str, Any] = {
            "title": "Compared: " + ", ".join(plan.run for plan in plans),
            "summary": "",
            "rows": [],
            "facts": assess.facts(first.seed)
            | {f"weights of {plan.run}": plan.model.fingerprint for plan in plans},
            "settings": {"runs": [plan.settings for plan in plans]},
            "held_out": [],
            "differences": [],
        }
        if compared is not None:
            report["reference"] = compared.reference(readers)
            report["controls"] = compared.controls(readers, first.seed)
        if first.judges:
            report["judge"] = first.judges[0].about
        real = None if compared is None else compared.real
        base: Measured = {}
        for plan in plans:
            measured: Measured = {}
            for steps, written in assess.writings(
                plan.model, plan.steps, plan.num, plan.seed, plan.sampler, readers, real,
                watch.work, None if inputs is None else unfilled(inputs.valid),
            ):  # fmt: skip
                measured[steps] = values(written)
                row = assess.row_of(names[plan.run], steps, written, measured[steps], readers)
                report["rows"].append(row)
                watch.row(row)
            if plan is first:
                base = measured
            else:
                report["differences"] += _differences(names[plan.run], measured, plan, first, base)
            if inputs is not None:
                found = assess.held_out(plan.model, inputs.valid)
                report["held_out"] += [row | {"method": names[plan.run]} for row in found]
        for plan in plans if first.knob is not None else ():
            turned = swept(plan, readers, real, report.get("reference") or {}, watch)
            named = [entry | {"method": names[plan.run]} for entry in turned]
            report.setdefault("frontier", []).extend(named)
        report["summary"] = (
            f"{len(plans)} models, {first.num:,} texts a row, from the same noise (seed "
            f"{first.seed}); differences are to {first.run}."
        )
        reports.write(report, out)
    return report


def _differences(
    name: str, measured: Measured, plan: Evaluation, first: Evaluation, base: Measured
) -> list[dict[str, Any]]:
    """Of every measure that is a mean over texts, at every number of steps that both have."""
    found = []
    for steps, own in measured.items():
        for key, value in own.items():
            other = base.get(steps, {}).get(key)
            if not MEASURES[key].of_texts or isinstance(value, int | float) or other is None:
                continue
            assert not isinstance(other, int | float)
            apart = drawn(value) - drawn(other)  # the same draws: pairs stay pairs
            if not bool(apart.isfinite().all()):
                continue
            found.append(
                {
                    "method": name,
                    "than": first.run,
                    "steps": steps,
                    "key": key,
                    "difference": figure(value) - figure(other),
                    "interval": interval(apart),
                }
            )
    return found


def _require_alike(plans: Sequence[Evaluation]) -> None:
    first = plans[0]
    for plan in plans[1:]:
        theirs, own = plan.model.tokenizer, first.model.tokenizer
        assert theirs is not None
        assert own is not None
        if (theirs.fingerprint, theirs.stop, plan.model.length) != (
            own.fingerprint, own.stop, first.model.length,
        ):  # fmt: skip
            raise Refusal(
                f"{plan.run} and {first.run} have other tokenizers, layouts or lengths, so their "
                "texts do not compare token by token: evaluate them apart."
            )
