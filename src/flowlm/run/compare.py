"""Several models side by side: the same noise, the same real text, differences text by text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flowlm.errors import Refusal
from flowlm.evaluate import reports
from flowlm.evaluate.measure import interval
from flowlm.evaluate.measures import MEASURES, summed, values
from flowlm.run import assess
from flowlm.run.assess import Steps
from flowlm.run.comparison import unfilled
from flowlm.run.evaluation import Evaluation, comparison_of, judge_of, swept
from flowlm.run.own_text import own_inputs
from flowlm.run.watch import Watch

Measured = dict[Steps, dict[str, float | Tensor]]


def compare(plans: Sequence[Evaluation], out: Path, watch: Watch) -> dict[str, Any]:
    """Measure every plan's model, and write one report into `out`; returns it.

    The first model is the one that others are compared with; its text and its judge judge all. A
    Refusal where models have other tokenizers, or write texts of another length.
    """
    first = plans[0]
    _require_alike(plans)
    names = {plan.run: f"{plan.model.experiment.method.label} ({plan.run})" for plan in plans}
    with reports.writing(out):
        inputs, judge = own_inputs(first.run, first.model, watch), judge_of(first)
        compared = comparison_of(first, inputs)
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
            report["reference"] = compared.reference(judge)
            report["controls"] = compared.controls(judge, first.seed)
        if first.judge is not None:
            report["judge"] = "an autoregressive flowlm run"
        base: Measured = {}
        for plan in plans:
            measured: Measured = {}
            real = None if compared is None else compared.real
            for steps, written in assess.writings(
                plan.model, plan.steps, plan.num, plan.seed, plan.sampler, judge, real, watch.work,
                None if inputs is None else unfilled(inputs.valid),
            ):  # fmt: skip
                measured[steps] = values(written)
                row = {"method": names[plan.run], "steps": steps} | summed(measured[steps])
                report["rows"].append(row)
                watch.row(row)
            if plan is first:
                base = measured
            else:
                report["differences"] += _differences(names[plan.run], measured, plan, first, base)
            if inputs is not None:
                found = assess.held_out(plan.model, inputs.valid)
                report["held_out"] += [row | {"method": names[plan.run]} for row in found]
        if first.knob is not None:
            real = None if compared is None else compared.real
            known = report.get("reference") or {}
            report["frontier"] = [
                entry | {"method": names[plan.run]}
                for plan in plans
                for entry in swept(plan, judge, real, known, watch)
            ]
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
            if not isinstance(value, Tensor) or not isinstance(other, Tensor):
                continue
            if len(value) != len(other) or not MEASURES[key].of_texts:
                continue
            apart = value.double() - other.double()
            if not bool(apart.isfinite().all()):
                continue
            found.append(
                {
                    "method": name,
                    "than": first.run,
                    "steps": steps,
                    "key": key,
                    "difference": float(apart.mean()),
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
        if theirs.fingerprint != own.fingerprint or plan.model.length != first.model.length:
            raise Refusal(
                f"{plan.run} and {first.run} have other tokenizers or lengths, so their texts do "
                "not compare token by token: evaluate them apart."
            )
