"""The command line: `flowlm COMMAND ...`. Bad input ends with one sentence and exit status 2."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowlm.cli import output
from flowlm.cli.unforeseen import unforeseen
from flowlm.errors import Notice, Refusal
from flowlm.train.launch import launched

PATIENCE = 20
"""Seconds that a process waits after a refusal for process 0 to say why: torchrun ends all of them
as soon as one has ended."""

HELP = """usage: flowlm COMMAND [OPTIONS]

Flow language models: train a continuous flow over one-hot text, distil it into a map that writes
in one step, judge it honestly, use it.

commands:
  demo                 train all methods on a small exact language and compare them
  recipes              list the recipes
  prepare NAME | PATH  tokenise a published corpus or any text once, for many runs
  train RECIPE         train a recipe or a chain; `flowlm train RECIPE --help` shows its options
  train --config FILE  train what an experiment.json says
  train --resume RUN   continue a run or a chain that was stopped, or a run for longer
  sample RUN           write texts
  serve RUN            a server: OpenAI-shaped completions, films, and a page to play with
  evaluate RUN         measure quality and diversity
  compare RUN RUN ...  measure several models side by side, on the same noise
  runs                 list the runs: method, data, size, steps, last validation
  convert RUN DIR      from the released format to a flowlm export, and back
  export RUN --page F  one HTML file that writes with the model in a browser, without a server
  export RUN --onnx F  the network of a flow or a flow map, for onnxruntime
  publish RUN HUB_ID   share a model, with a card written from its report
  completion SHELL     print a script with which bash, zsh or fish completes all this

`flowlm COMMAND --help` shows the options of a command. Start with: flowlm sample demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 for bad input, 130 if interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    output.open_all()
    try:
        status = _status(*words)
        sys.stdout.flush()
    except Refusal as refusal:
        if leads():
            output.say(f"flowlm: {refusal}")
        status = 2
    except KeyboardInterrupt:
        output.say("\nflowlm: stopped.")
        status = 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        status = 0
    except Exception as error:
        sentence = unforeseen(error)
        if sentence is None:  # a fault of this program: its traceback is what helps
            raise
        output.say(f"flowlm: {sentence}")
        status = 2
    output.settle_all()
    if status == 2 and not leads():
        time.sleep(PATIENCE)
    return status


def leads() -> bool:
    """Whether this process speaks for all that torchrun started: the others are quiet."""
    try:
        launch = launched()
    except Refusal:  # said by whoever joins the others
        return True
    return launch.rank == 0 or not launch.watched


def _status(command: str, *rest: str) -> int:
    if command in ("-h", "--help"):
        print(HELP, end="")
    elif command == "--version":
        from flowlm import __version__

        print(f"flowlm {__version__}")
    else:
        from flowlm.cli.commands import run_command

        try:
            with _plain_notices():
                return run_command(command, rest)
        except SystemExit as end:  # after --help
            return int(end.code or 0)
    return 0


@contextmanager
def _plain_notices() -> Iterator[None]:
    """A notice is a sentence for the person at the keyboard, without file and line."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None) -> None:
            if issubclass(category, Notice):
                print(f"flowlm: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
