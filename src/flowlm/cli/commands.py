"""The commands: each reads options, calls the library, and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flowlm.cli import options
from flowlm.cli.completion import Completion, script
from flowlm.cli.parse import (
    parsed,
    require_amounts,
    sampler,
    sampling_options,
)  # fmt: skip
from flowlm.cli.preparing import Prepare, prepare
from flowlm.cli.sampling import sample
from flowlm.cli.serving import Serve, serve
from flowlm.cli.training import train
from flowlm.errors import Refusal, meant
from flowlm.hub.names import last_run
from flowlm.judges.finding import find_judge
from flowlm.machine.device import device_name
from flowlm.model.finding import experiment_of, find_model
from flowlm.model.front_matter import require_license
from flowlm.recipes import CHAINS, RECIPES

# What needs torch is imported inside the commands: help and refusals must come at once.


TRAIN_HELP = """usage: flowlm train RECIPE [--init RUN] [OPTIONS]
       flowlm train --config experiment.json [OPTIONS]
       flowlm train --resume RUN [--train.steps N]

Each answers to --help.

recipes:"""


COMMANDS = (
    "demo", "recipes", "prepare", "train", "sample", "evaluate", "compare", "runs", "convert",
    "export", "publish", "serve", "completion",
)  # fmt: skip


def run_command(command: str, words: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    match command:
        case "recipes":
            return recipes()
        case "train" if words and words[0] in ("-h", "--help"):
            print(TRAIN_HELP)
            return recipes()
        case "train":
            return train(words)
        case "demo":
            return demo(parsed(options.Demo, command, words))
        case "prepare":
            return prepare(parsed(Prepare, command, words))
        case "sample":
            return sample(words)
        case "serve":
            return serve(parsed(Serve, command, words))
        case "evaluate":
            return evaluate(sampling_options(options.Evaluate, command, words))
        case "compare":
            return compare(parsed(options.Compare, command, words))
        case "runs":
            return runs(parsed(options.Runs, command, words))
        case "convert":
            return convert(parsed(options.Convert, command, words))
        case "export":
            return export(parsed(options.Export, command, words))
        case "publish":
            return publish(parsed(options.Publish, command, words))
        case "completion":
            print(script(parsed(Completion, command, words).shell, COMMANDS, run_command), end="")
            return 0
    known = meant(command, COMMANDS)
    raise Refusal(f"There is no command {command}{known}; see flowlm --help.")


def recipes() -> int:
    """List the recipes and the chains, one a line."""
    for name, recipe in {**RECIPES, **CHAINS}.items():
        print(f"  {name:20} {(recipe.__doc__ or '').strip().splitlines()[0]}")
    return 0


def _require_several(chosen: options.Evaluate | options.Compare) -> None:
    require_amounts(chosen.num, chosen.steps, chosen.seed)
    device_name(chosen.device)
    if chosen.num < 2:
        raise Refusal("Ask for at least two texts: --num 2.")


def evaluate(chosen: options.Evaluate) -> int:
    """Measure a run and write its report."""
    _require_several(chosen)
    if not 1 <= chosen.seeds <= 1000:
        raise Refusal(
            f"--seeds counts seeds from --seed on, and {chosen.seeds} is none: choose 1 to 1000."
        )
    place = find_model(chosen.run)
    for name in chosen.judge:
        find_judge(name)
    way = sampler(chosen, "evaluate", experiment_of(place))
    from flowlm.cli import show
    from flowlm.evaluate import reports
    from flowlm.machine.hardware import keep_to_cores
    from flowlm.run import evaluation

    keep_to_cores()
    wanted = evaluation.opened(
        chosen.run, chosen.steps, chosen.num, chosen.seed, chosen.judge, chosen.device,
        chosen.tokenizer, way, chosen.frontier, chosen.seeds,
    )  # fmt: skip
    out, console = chosen.out or reports.place_of(str(last_run(Path(chosen.run)))), show.console()
    if not way.counts_steps:
        method = wanted.model.experiment.method
        console.print(show.one_way(method, way, wanted.model.length), soft_wrap=True)
    try:
        with show.Measuring(console, wanted.work) as watch:
            report = evaluation.evaluate(wanted, out, watch)
    except KeyboardInterrupt:
        if kept := reports.unfinished_rows(out, wanted.settings):
            print(
                f"\nflowlm: {len(kept)} of {len(wanted.steps)} rows are kept in "
                f"{out / reports.UNFINISHED}: the same command goes on after them.",
                file=sys.stderr,
            )
        raise
    show.results(console, report)
    written = f"{out / reports.REPORT}, {out / reports.PAGE}"
    console.print(f"Written: {written}", soft_wrap=True)
    return 0


def compare(chosen: options.Compare) -> int:
    """Measure several models side by side."""
    _require_several(chosen)
    if len(chosen.runs) < 2 or len(set(chosen.runs)) < len(chosen.runs):
        raise Refusal("Name at least two different models to compare.")
    for name in chosen.runs:
        find_model(name)
    for name in chosen.judge:
        find_judge(name)
    from flowlm.cli import show
    from flowlm.evaluate import reports
    from flowlm.machine.hardware import keep_to_cores
    from flowlm.run.compare import compare as compared
    from flowlm.run.compare import opened

    keep_to_cores()
    plans = opened(
        chosen.runs, chosen.steps, chosen.num, chosen.seed, chosen.judge, chosen.device,
        chosen.frontier,
    )  # fmt: skip
    console = show.console()
    with show.Measuring(console, sum(plan.work for plan in plans)) as watch:
        report = compared(plans, chosen.out, watch)
    show.results(console, report)
    console.print(f"Written: {chosen.out / reports.REPORT}, {chosen.out / reports.PAGE}")
    return 0


def runs(chosen: options.Runs) -> int:
    """List runs with their method, data, size, steps and last validation."""
    from flowlm.cli import show
    from flowlm.run.listing import listed

    show.runs(show.console(), listed(chosen.directory))
    return 0


def convert(chosen: options.Convert) -> int:
    """Write a model in the other format."""
    source = find_model(chosen.source)
    from flowlm.model import publish as sharing

    written = sharing.convert(source, chosen.target, chosen.tokenizer)
    print(f"{chosen.target}: {written}. Write with it: flowlm sample {chosen.target}")
    return 0


def export(chosen: options.Export) -> int:
    """Write a page with a model inside, or the graph of its network."""
    if (chosen.page is None) == (chosen.onnx is None):
        raise Refusal("Name one file to write: --page FILE.html or --onnx FILE.onnx.")
    find_model(chosen.run)
    if chosen.page is not None:
        from flowlm.model.page import export_page

        export_page(chosen.run, chosen.page, chosen.tokenizer)
        _written(chosen.page, "Open it in a browser, or put it on any web server.")
    if chosen.onnx is not None:
        from flowlm.model.onnx import export_onnx

        export_onnx(chosen.run, chosen.onnx, chosen.tokenizer)
        _written(chosen.onnx, "Run it with onnxruntime: docs/onnx.md has a writer of 25 lines.")
    return 0


def _written(file: Path, use: str) -> None:
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB. {use}")


def publish(chosen: options.Publish) -> int:
    """Upload a model with its card."""
    license = require_license(chosen.license)
    run = find_model(chosen.run)
    from flowlm.model import publish as sharing

    url = sharing.publish(str(run), chosen.repository, chosen.report, chosen.private, license)
    print(f"Published: {url}\nLoad it: flowlm.load({chosen.repository!r})")
    return 0


def demo(chosen: options.Demo) -> int:
    """Run the demo and print its table."""
    from flowlm.cli import show
    from flowlm.run.demo import demo_report, train_demo

    console = show.console()
    console.print(
        f"Four models learn one small language, in {chosen.out}. When training ends, each writes "
        "5,000 sentences.",
        highlight=False,
        soft_wrap=True,
    )
    show.progress(console, train_demo(chosen.out, chosen.seed))
    report = demo_report(chosen.out, chosen.seed)
    show.results(console, report)
    console.print(f"The whole report: {chosen.out / 'report.html'}", soft_wrap=True)
    console.print(
        f"Write with the flow map: flowlm sample {chosen.out / 'flow-map'}", soft_wrap=True
    )
    return 0
