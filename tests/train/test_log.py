"""metrics.jsonl reads as if the run had never stopped, and is whole at every moment."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from flowlm.cli.show import Paper
from flowlm.train import Log
from flowlm.train.log import plain


def paper() -> Console:
    return Console(file=io.StringIO(), width=40)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_records_are_lines_of_json_at_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with Log(file, "run", 0, 3, paper()) as log:
        log.record(1, loss=0.1, norm=2.0)
        assert file.read_text() == '{"step": 1, "loss": 0.1, "norm": 2.0}\n'
        log.record(2, valid=1 / 3)
        assert json.loads(file.read_text().splitlines()[1]) == {"step": 2, "valid": 1 / 3}


@pytest.mark.parametrize("first", range(5))
def test_records_after_the_checkpoint_are_dropped(first: int, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "loss": {step}.5}}\n' for step in (1, 2, 2, 3)]
    file.write_text("".join(lines))
    with Log(file, "run", first, 4, paper()) as log:
        log.record(4, loss=0.0)
    kept = "".join(lines[: {0: 0, 1: 1, 2: 3}.get(first, 4)])
    assert file.read_text() == kept + '{"step": 4, "loss": 0.0}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("tail", ['{"step": 2, "lo', '{"step"', "{", "\n", '{"loss": 1}\n'])
def test_a_line_that_was_cut_off_is_dropped(tail: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n' + tail)
    with Log(file, "run", 3, 4, paper()) as log:
        log.record(4)
    assert file.read_text() == '{"step": 1}\n{"step": 4}\n'


def test_the_file_is_closed_when_the_run_breaks(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl", "run", 0, 3, paper())
    with pytest.raises(KeyboardInterrupt), log:
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="closed"):
        log.record(1)


def test_without_a_terminal_there_are_few_plain_lines(tmp_path: Path) -> None:
    console = paper()
    with Log(tmp_path / "metrics.jsonl", "run", 0, 1000, console) as log:
        for step in range(1, 1001):
            log.show(step, 0.5, 1234.5)
        log.say("a sentence that is much longer than a line of forty letters")
    first, *others, sentence = written(console).splitlines()
    assert first.startswith("run  step 1/1000  loss 0.5000  1,23")
    assert [line.split("  ")[1] for line in others] == ["step 1000/1000"]
    assert sentence == "a sentence that is much longer than a line of forty letters"


def test_a_plain_console_writes_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "train.log").open("w") as file:
        assert not plain(file).is_terminal
        plain(file).print("words " * 30, soft_wrap=True)
    assert (tmp_path / "train.log").read_text().strip() == ("words " * 30).strip()


def test_nothing_is_said_of_the_time_left_before_it_means_something(tmp_path: Path) -> None:
    console = paper()
    with Log(tmp_path / "metrics.jsonl", "run", 0, 1, console) as log:
        log.show(1, 0.5, 1234.5)
    assert written(console) == "run  step 1/1  loss 0.5000  1,234 tokens/s\n"


class Closed(io.StringIO):
    """A console's file whose reader has gone, or whose disk is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_run_goes_on_without_its_output(error: Exception, tmp_path: Path) -> None:
    closed = Closed(error)
    with Log(tmp_path / "metrics.jsonl", "run", 0, 9, Paper(file=closed)) as log:
        for step in range(1, 10):
            log.say("a sentence")
            log.show(step, 1.0, 2.0)
            log.record(step, loss=1.0)
    assert closed.tries == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9
