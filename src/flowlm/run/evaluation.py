"""An evaluation of a model: all of it checked before the first text, its rows as they come."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.evaluate import reports
from flowlm.evaluate.frontier import VALUES
from flowlm.evaluate.judge import Judge, Reader
from flowlm.evaluate.measures import SPREAD, over_seeds
from flowlm.evaluate.real import RealText
from flowlm.experiment import Text, settings_of
from flowlm.judges.opening import open_judges
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.run import assess, comparison, sweep
from flowlm.run.assess import Steps
from flowlm.run.comparison import Comparison
from flowlm.run.inputs import Inputs
from flowlm.run.own_text import own_inputs
from flowlm.run.watch import Watch
from flowlm.sampling import PointSampler, Sampler

SAMPLES = 24
"""Texts of each row that a report shows."""

FILM = 16
"""Steps of the film in a report."""


@dataclass(frozen=True)
class Evaluation:
    """A plan of what to measure, whose parts have been checked to fit together."""

    run: str
    """The model, as it was named."""
    model: LanguageModel
    sampler: Sampler
    """How it writes."""
    judges: tuple[Judge, ...]
    """Who scores the texts; the first fills the table."""
    steps: tuple[Steps, ...]
    num: int
    """Texts behind every row."""
    seed: int
    knob: str | None = None
    """The setting of the sampler that is turned, for a frontier."""
    seeds: int = 1
    """Seeds from `seed` on; figures are those of the first, and spread over all."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything its figures depend on, as JSON: reports of other settings do not compare."""
        model = self.model
        assert model.tokenizer is not None
        return {
            "steps": list(self.steps),
            "num": self.num,
            "seed": self.seed,
            "judges": [judge.fingerprint for judge in self.judges],
            "weights": model.fingerprint,
            "method": settings_of(model.experiment.method),
            "sampler": settings_of(self.sampler),
            "tokenizer": model.tokenizer.fingerprint,
            "device": str(model.device),
            "frontier": self.knob,
            "seeds": self.seeds,
        }

    @property
    def turned(self) -> tuple[float, ...]:
        """The values of the knob."""
        return () if self.knob is None else VALUES[self.knob]

    @property
    def work(self) -> int:
        """Evaluations of the network for all texts of all rows."""
        length = self.model.length
        each = (self.sampler.evaluations(assess.counted(steps), length) for steps in self.steps)
        return self.num * sum(each) * (self.seeds + len(self.turned))


def opened(
    run: str,
    steps: tuple[int, ...],
    num: int,
    seed: int,
    judges: Sequence[str] = (),
    device: str = "auto",
    tokenizer: str | None = None,
    sampler: Sampler | None = None,
    knob: str | None = None,
    seeds: int = 1,
) -> Evaluation:
    """Load the model that `run` names, and the judges. A Refusal if they cannot be compared.

    `sampler` is how it is to write; by default as its experiment says.
    """
    model = load(run, device, tokenizer=tokenizer)
    if model.tokenizer is None:
        raise Refusal(f"{run} has no tokenizer: its texts cannot be read without one.")
    task = assess.task_of(model)
    exact = task is not None and task.language is not None
    if judges and task is not None and exact:
        raise Refusal(
            f"{run} writes {task.about}, whose likelihoods are known exactly: leave --judge out."
        )
    way = model.experiment.sampler if sampler is None else sampler
    model.experiment.method.require_sampler(way)
    taken: tuple[Steps, ...] = tuple(dict.fromkeys(steps)) if way.counts_steps else (way.all_steps,)
    if knob is not None:
        sweep.require_knob(knob, way)
        if not judges and not exact:
            raise Refusal("A frontier needs somebody who scores the texts: give --judge RUN.")
    return Evaluation(run, model, way, open_judges(judges, model), taken, num, seed, knob, seeds)


def evaluate(wanted: Evaluation, out: Path, watch: Watch) -> dict[str, Any]:
    """Measure, and write report.json and report.html into `out`; returns the report.

    Rows that are measured are kept in `out` at once: stopped and started again with the same
    settings, an evaluation goes on after them. A Refusal before the first text is written if `out`
    cannot be written to, or the held-out text does not belong to the model.
    """
    model, num, seed, settings = wanted.model, wanted.num, wanted.seed, wanted.settings
    with reports.writing(out):
        inputs = own_inputs(wanted.run, model, watch)
        compared = comparison_of(wanted, inputs)
        readers = readers_of(wanted, compared)
        label = model.experiment.method.label
        report: dict[str, Any] = {
            "title": f"{label}: {wanted.run}",
            "summary": "",
            "rows": reports.unfinished_rows(out, settings),
            "facts": assess.facts(seed) | _about(wanted),
            "settings": settings,
        }
        if compared is not None:
            report["reference"] = compared.reference(readers)
            report["controls"] = compared.controls(readers, seed)
        if wanted.judges or isinstance(model.experiment.data, Text):
            report["judge"] = wanted.judges[0].about if wanted.judges else "nobody"
        table = report["rows"]
        left = wanted.steps[len(table) :]
        if table:
            watch.say(f"{len(table)} of {len(wanted.steps)} rows are measured already: going on.")
            watch.work(wanted.work - replace(wanted, steps=left).work)
        real = None if compared is None else compared.real
        valid = None if inputs is None else comparison.unfilled(inputs.valid)
        for row in assess.rows(
            model, left, num, seed, wanted.sampler, readers, real, watch.work, valid
        ):
            row |= _spread(wanted, row, readers, real, watch)
            table.append(row)
            report["summary"] = f"Unfinished: {len(table)} of {len(wanted.steps)} rows."
            reports.write_unfinished(report, out)
            watch.row(row)
        report["summary"] = (
            f"{label} at {table[0]['steps']} step{'s' * (table[0]['steps'] != 1)}: sample entropy "
            f"{table[0]['sample_entropy']:.3f} nats, {table[0]['unique']:.1%} of {num} texts "
            "unique."
        )
        if wanted.knob is not None:
            known = report.get("reference") or {}
            report["frontier"] = swept(wanted, readers, real, known, watch)
        report |= _shown(wanted)
        report["held_out"] = [] if inputs is None else assess.held_out(model, inputs.valid)
        reports.write(report, out)
    return report


def swept(
    wanted: Evaluation,
    readers: Sequence[Reader],
    real: RealText | None,
    reference: Mapping[str, Any],
    watch: Watch,
) -> list[dict[str, Any]]:
    """A frontier for each number of steps."""
    assert wanted.knob is not None
    return [
        sweep.sweep(
            wanted.model, wanted.sampler, wanted.knob, steps, wanted.num, wanted.seed, readers,
            real, reference, watch.work,
        )
        for steps in wanted.steps
    ]  # fmt: skip


def _spread(
    wanted: Evaluation,
    row: dict[str, Any],
    readers: Sequence[Reader],
    real: RealText | None,
    watch: Watch,
) -> dict[str, Any]:
    """How figures of a row differ over seeds, if there are several."""
    if wanted.seeds == 1:
        return {}
    model, steps, sampler = wanted.model, (row["steps"],), wanted.sampler
    tables = (
        assess.rows(model, steps, wanted.num, wanted.seed + k, sampler, readers, real, watch.work)
        for k in range(1, wanted.seeds)
    )
    return {SPREAD: over_seeds([row, *(next(table) for table in tables)])}


def _about(wanted: Evaluation) -> dict[str, str | int]:
    """The model, its text and the command."""
    model, data = wanted.model, wanted.model.experiment.data
    told: dict[str, str | int] = {
        "data": (data.path or "text") if isinstance(data, Text) else data.about,
        "parameters": sum(weight.numel() for weight in model.weights.values()),
        "sampler": type(wanted.sampler).__name__,
        "weights": model.fingerprint,
        "date": date.today().isoformat(),
        "command": shlex.join(["flowlm", *sys.argv[1:]]),
    }
    for place, judge in enumerate(wanted.judges, 1):
        told["judge" if place == 1 else f"judge {place}"] = f"{judge.about}: {judge.fingerprint}"
    return told


def _shown(wanted: Evaluation) -> dict[str, Any]:
    """Parts of a report besides its rows: the curve, texts, a film, the language itself."""
    model, seed, sampler = wanted.model, wanted.seed, wanted.sampler
    method = model.experiment.method
    shown: dict[str, Any] = {
        "curves": {method.label: assess.curve(Path(wanted.run))},
        "levels": {method.label: assess.levels(Path(wanted.run))},
        "samples": {
            f"{method.label} @ {steps}": assess.samples(
                model, assess.counted(steps), SAMPLES, seed, sampler
            )
            for steps in wanted.steps
        },
    }
    if isinstance(sampler, PointSampler):
        shown["film"] = assess.film(model, FILM, seed, sampler)
    return shown


def readers_of(wanted: Evaluation, compared: Comparison | None) -> tuple[Reader, ...]:
    """The judges, each with the real text that it compares with."""
    held_out = None if compared is None else compared.real.held_out
    return tuple(Reader(judge, held_out) for judge in wanted.judges)


def comparison_of(wanted: Evaluation, inputs: Inputs | None) -> Comparison | None:
    """Texts to compare with; None where the model's text is not at hand."""
    model = wanted.model
    if (task := assess.task_of(model)) is not None:
        return comparison.of_task(task, wanted.num, wanted.seed)
    return None if inputs is None else comparison.of_text(inputs, wanted.num)
