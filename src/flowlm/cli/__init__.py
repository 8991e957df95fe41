"""The command line: `flowlm COMMAND ...`. Bad input ends with one sentence and exit status 2."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowlm.errors import Notice, Refusal

HELP = """usage: flowlm COMMAND [OPTIONS]

Flow language models: train a continuous flow over one-hot text, distil it into a map that writes
in one step, judge it honestly, use it.

commands:
  demo                 train all methods on a small exact language and compare them (5 minutes)
  recipes              list the recipes
  prepare NAME | PATH  tokenise a published corpus or any text once, for many runs
  train RECIPE         train a recipe; `flowlm train RECIPE --help` shows its options
  train --resume RUN   continue a run that was stopped
  sample RUN           write texts
  evaluate RUN         measure quality and diversity
  convert RUN DIR      from the released format to a flowlm export, and back
  publish RUN HUB_ID   share a model, with a card written from its report

`flowlm COMMAND --help` shows the options of a command. Start with: flowlm sample demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 for bad input, 130 if interrupted."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(HELP, end="")
        elif command == "--version":
            from flowlm import __version__

            print(f"flowlm {__version__}")
        else:
            from flowlm.cli.commands import run_command

            with _plain_notices():
                return run_command(command, rest)
    except Refusal as refusal:
        print(f"flowlm: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nflowlm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
