"""The demo: four models of one language, trained side by side, measured exactly."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, read_experiment
from flowlm.files import LOCK, locked, write_text
from flowlm.recipes import demo
from flowlm.run.metrics import records
from flowlm.tasks.generated import Generated

FEW = (1, 2, 4, 8)
STEPS = (*FEW, "full")
NUM = 1000
"""Texts behind every figure."""

ROWS, HELD_OUT = "rows.json", "held-out.json"
"""Figures of one finished model; how likely it finds held-out text."""

PERFECT = "perfect.json"
"""Figures of masked diffusion without a network."""

# Each chain runs in a process of its own with one thread: the steps are too small for more. The
# first one takes longest, so where there are fewer cores than chains the others give way to it:
# it has a core to itself, they share the rest, and at the end no core waits for another.
CHAINS = (("flow", "flow-map"), ("masked",), ("autoregressive",))
GIVE_WAY = 5
"""Niceness of the chains after the first, where processes have one."""

RECIPES = {
    "flow": demo.flow,
    "flow-map": demo.flow_map,
    "masked": demo.masked,
    "autoregressive": demo.autoregressive,
}


@dataclass(frozen=True)
class Progress:
    """How far the training of one model is."""

    step: int
    steps: int


def train_demo(out: Path, seed: int, wait: float = 0.5) -> Iterator[dict[str, Progress]]:
    """Train and measure the four models in the directory `out`, yielding their progress.

    A model that is finished there already is kept; one that was interrupted goes on. A Refusal if
    another process does the same in `out`, or if it cannot be written.
    """
    with locked(out / LOCK, out):
        yield from _trained(out, seed, wait)


def _trained(out: Path, seed: int, wait: float) -> Iterator[dict[str, Progress]]:
    experiments = {part: experiment(part, out, seed) for part in RECIPES}
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(chain, out, seed), name="+".join(chain))
        for chain in CHAINS
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(wait / len(workers))
            yield {
                part: Progress(_steps_done(out / part), experiment.train.steps)
                for part, experiment in experiments.items()
            }
    except BaseException:
        for worker in workers:
            worker.terminate()  # SIGTERM: they save and stop
            worker.join()
        raise
    for worker in workers:
        _require_success(worker, out)


def experiment(part: str, out: Path, seed: int) -> Experiment:
    """The experiment of one model of the demo."""
    chosen = RECIPES[part]()
    if chosen.method.teachers:
        teacher = str(out.absolute() / "flow")
        chosen = replace(chosen, method=chosen.method.with_teacher(teacher))
    return replace(chosen, train=replace(chosen.train, seed=seed))


def demo_report(out: Path, seed: int) -> dict[str, Any]:
    """Compose the report of the four finished models and write it into `out`."""
    from flowlm.evaluate import reports
    from flowlm.model.loading import load
    from flowlm.run import assess, comparison

    parts = {part: json.loads((out / part / ROWS).read_text()) for part in RECIPES}
    rows = [row for part in ("flow-map", "flow", "masked", "autoregressive") for row in parts[part]]
    figures = {(row["method"], row["steps"]): row for row in rows}
    rows += json.loads((out / PERFECT).read_text())
    models = {part: load(out / part, "cpu") for part in RECIPES}
    names = {part: model.experiment.method.label for part, model in models.items()}
    compared = comparison.of_task(Generated(), NUM, seed)
    one, eight = figures[names["flow-map"], 1], figures[names["masked"], 8]
    report = {
        "title": "Writing a sentence in one step",
        "summary": f"One step of the flow map writes {one['valid']:.1%} valid sentences at "
        f"{one['nll']:.2f} nats per token, eight steps of masked diffusion {eight['valid']:.1%} at "
        f"{eight['nll']:.2f}, after the same training compute.",
        "rows": rows,
        "reference": compared.reference(()),
        "controls": compared.controls((), seed),
        "held_out": [
            row
            for part in ("flow", "flow-map", "masked", "autoregressive")
            for row in json.loads((out / part / HELD_OUT).read_text())
        ],
        "facts": assess.facts(seed)
        | {
            "parameters of the flow map": sum(
                w.numel() for w in models["flow-map"].weights.values()
            )
        }
        | {f"seconds of training, {names[p]}": _seconds(out / p) for p in RECIPES},
        "curves": {names[part]: assess.curve(out / part) for part in RECIPES},
        "levels": {names[part]: assess.levels(out / part) for part in ("flow", "flow-map")},
        "samples": {
            f"{names[part]} @ {steps}": assess.samples(
                models[part], steps, 6, seed, models[part].experiment.sampler
            )
            for part, steps in (("flow-map", 1), ("flow-map", 4), ("masked", 8))
        },
        "film": assess.film(models["flow"], 16, seed, models["flow"].experiment.sampler),
        "settings": {"steps": list(STEPS), "num": NUM, "seed": seed}
        | {"weights": {part: model.fingerprint for part, model in models.items()}},
    }
    with reports.writing(out):
        reports.write(report, out)
    return report


def _work(chain: tuple[str, ...], out: Path, seed: int) -> None:
    """Train and measure the models of one chain (a process of its own, which ends with the first).

    Whoever presses Ctrl-C reaches every process: the first one speaks.
    """
    try:
        _walk(chain, out, seed)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _walk(chain: tuple[str, ...], out: Path, seed: int) -> None:
    """Train and measure the models of a chain, one after the other."""
    from flowlm.model.loading import load
    from flowlm.run import assess, comparison
    from flowlm.run.inputs import open_inputs
    from flowlm.run.training import Interrupted, train_run
    from flowlm.train.checkpoint import found
    from flowlm.train.log import plain

    if chain != CHAINS[0] and sys.platform != "win32":
        os.nice(GIVE_WAY)
    for part in chain:
        directory, wanted = out / part, experiment(part, out, seed)
        measured = all((directory / name).exists() for name in (HELD_OUT, ROWS))
        if measured and read_experiment(directory) == wanted:
            continue
        again = (directory / "experiment.json").exists() and bool(found(directory / "checkpoints"))
        directory.mkdir(exist_ok=True)
        with (directory / "train.log").open("a") as log:
            try:
                if again and read_experiment(directory) != wanted:
                    raise Refusal(
                        f"{out} holds a demo of another seed or version: choose another --out."
                    )
                train_run(wanted, directory, plain(log), resume=again)
            except (Interrupted, Refusal) as problem:
                print(problem, file=log)
                raise SystemExit(1) from None
        model = load(directory, "cpu")
        text = open_inputs(wanted, directory).valid
        write_text(json.dumps(assess.held_out(model, text)), directory / HELD_OUT)
        real = comparison.of_task(Generated(), NUM, seed).real
        sampler = model.experiment.sampler
        table = list(assess.rows(model, STEPS, NUM, seed, sampler, (), real, held_out=text.tokens))
        write_text(json.dumps(table), directory / ROWS)
    if chain == CHAINS[-1]:  # the shortest: it is measured while the others still learn
        write_text(json.dumps(assess.perfect_masked_rows(FEW, NUM, seed)), out / PERFECT)


def _require_success(worker: BaseProcess, out: Path) -> None:
    if worker.exitcode == 0:
        return
    logs = [out / part / "train.log" for part in worker.name.split("+")]
    last = max(
        (log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None
    )
    said = [] if last is None else last.read_text().splitlines()
    raise Refusal(
        f"The demo's {worker.name} did not finish ({said[-1] if said else 'no message'}); run the "
        "same command again to go on."
    )


def _seconds(run: Path) -> int:
    return round(sum(record.get("seconds", 0.0) for record in records(run)))


def _steps_done(directory: Path) -> int:
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
            return json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, IndexError, ValueError, KeyError):
        return 0
