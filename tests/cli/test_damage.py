"""Run directories that are damaged or do not fit: refused in a sentence, or repaired."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowlm.data.tokenizer import Tokenizer

WRITING = (["sample"], ["evaluate", "--num", "2", "--steps", "1"])


def contents(directory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# --- weights ------------------------------------------------------------------------------------

HEADER = 8  # bytes that hold the length of a safetensors header


def remove(weights: dict[str, torch.Tensor]) -> None:
    del weights["norm.weight"]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["extra.weight"] = torch.zeros(2)


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["norm.weight"] = torch.zeros(15)


def behead(weights: dict[str, torch.Tensor]) -> None:
    del weights["head.weight"]


def flatten(weights: dict[str, torch.Tensor]) -> None:
    weights["head.weight"] = torch.zeros(())


@pytest.mark.parametrize("command", WRITING, ids=lambda words: words[0])
@pytest.mark.parametrize("change", [remove, add, reshape, behead, flatten])
def test_tensors_that_do_not_fit_are_refused(
    command: list[str], change: Callable, flowlm: Callable, flow_run: Path
) -> None:
    file = flow_run / "model.safetensors"
    weights = load_file(file)
    names = weights.keys() | {"extra.weight"}
    before = dict(weights)
    change(weights)
    changed = [n for n in names if before.get(n) is not weights.get(n)]
    save_file(weights, file)
    after = contents(flow_run)
    flowlm(command[0], flow_run, *command[1:]).refusal(file, *changed)
    assert contents(flow_run) == after


@pytest.mark.parametrize("command", WRITING, ids=lambda words: words[0])
@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(
    command: list[str], kept: int, flowlm: Callable, flow_run: Path
) -> None:
    file = flow_run / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    flowlm(command[0], flow_run, *command[1:]).refusal(file)


def test_any_flipped_byte_in_the_weights_header_is_refused(
    flowlm: Callable, flow_run: Path
) -> None:
    file = flow_run / "model.safetensors"
    whole = file.read_bytes()
    size = int.from_bytes(whole[:HEADER], "little")
    text = whole[HEADER : HEADER + size].decode()
    places = [*range(HEADER), *random.Random(0).sample(range(HEADER, HEADER + size), 30)]
    for place in places:
        if text[place - HEADER : place - HEADER + 1] == " ":
            continue  # padding at the end of the header means nothing
        file.write_bytes(flipped(whole, place))
        flowlm("sample", flow_run, "--num", 1).refusal(flow_run)


@pytest.mark.parametrize("command", WRITING, ids=lambda words: words[0])
def test_a_run_without_weights_yet_is_refused(
    command: list[str], flowlm: Callable, flow_run: Path
) -> None:
    (flow_run / "model.safetensors").unlink()
    flowlm(command[0], flow_run, *command[1:]).refusal("model.safetensors", "checkpoint")


# --- tokenizer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", WRITING, ids=lambda words: words[0])
@pytest.mark.parametrize("kind", ["another", "broken", "empty", "binary"])
def test_a_tokenizer_that_does_not_fit_is_refused(
    command: list[str], kind: str, flowlm: Callable, flow_run: Path
) -> None:
    file = flow_run / "tokenizer.json"
    if kind == "another":
        Tokenizer.characters(["other"]).save(file)
    else:
        broken = file.read_bytes()[:-20]
        file.write_bytes({"broken": broken, "empty": b"", "binary": b"\xff\x00"}[kind])
    flowlm(command[0], flow_run, *command[1:]).refusal(file)


def test_a_model_without_a_tokenizer_writes_numbers(flowlm: Callable, flow_run: Path) -> None:
    (flow_run / "tokenizer.json").unlink()
    answer = flowlm("sample", flow_run, "--num", 1)
    assert answer.status == 0
    numbers = answer.out.split()
    assert len(numbers) == 16
    assert all(0 <= int(number) < 18 for number in numbers)


def test_an_evaluation_without_a_tokenizer_is_refused(flowlm: Callable, flow_run: Path) -> None:
    (flow_run / "tokenizer.json").unlink()
    before = contents(flow_run)
    flowlm("evaluate", flow_run, "--num", 2, "--steps", 1).refusal("tokenizer")
    assert contents(flow_run) == before


# --- checkpoints --------------------------------------------------------------------------------


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-100])


def empty(checkpoint: Path) -> None:
    (checkpoint / "__0_0.distcp").write_bytes(b"")


def flip(checkpoint: Path) -> None:
    file = checkpoint / "__0_0.distcp"
    data = file.read_bytes()
    file.write_bytes(flipped(data, len(data) // 2))


def lose_state(checkpoint: Path) -> None:
    (checkpoint / "__0_0.distcp").unlink()


def lose_stamp(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").unlink()


def break_stamp(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").write_text('{"step": 4, "sha')


def null_stamp(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").write_text("null")


def hollow(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


DAMAGE = [truncate, empty, flip, lose_state, lose_stamp, break_stamp, null_stamp, hollow]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable, flowlm: Callable, flow_run: Path
) -> None:
    weights = (flow_run / "model.safetensors").read_bytes()
    (flow_run / "model.safetensors").unlink()
    newest = flow_run / "checkpoints" / "step-00000004"
    damage(newest)
    answer = flowlm("train", "--resume", flow_run)
    assert answer.status == 0
    assert answer.err == ""
    said = [line for line in answer.out.splitlines() if str(newest) in line]
    assert len(said) == 1
    assert said[0].startswith("Skipped")
    assert "step 4/4" in answer.out
    # Steps 3 and 4 are taken again, and they are the same.
    assert (flow_run / "model.safetensors").read_bytes() == weights
    assert (newest / "__0_0.distcp").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_whole_checkpoint_resuming_is_refused(
    damage: Callable, flowlm: Callable, flow_run: Path
) -> None:
    for checkpoint in (flow_run / "checkpoints").iterdir():
        damage(checkpoint)
    before = contents(flow_run)
    flowlm("train", "--resume", flow_run).refusal(flow_run / "checkpoints")
    assert contents(flow_run) == before


def test_a_run_that_never_saved_is_no_dead_end(
    flowlm: Callable, train: Callable, flow_run: Path
) -> None:
    shutil.rmtree(flow_run / "checkpoints")
    (flow_run / "model.safetensors").unlink()
    resumed = flowlm("train", "--resume", flow_run)
    if resumed.status:
        resumed.refusal("train from the start")
        again = train("text-flow", flow_run)
        assert again.status == 0, f"resuming says train from the start, which says {again.err}"


def test_a_checkpoint_of_another_network_is_refused(flowlm: Callable, flow_run: Path) -> None:
    file = flow_run / "experiment.json"
    experiment = json.loads(file.read_text())
    experiment["size"]["width"] = 32
    file.write_text(json.dumps(experiment))
    flowlm("train", "--resume", flow_run).refusal(flow_run)


def test_a_finished_run_resumes_to_nothing(flowlm: Callable, flow_run: Path) -> None:
    before = contents(flow_run)
    assert flowlm("train", "--resume", flow_run).status == 0
    assert contents(flow_run) == before


# --- metrics and tokens -------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ['{"step": 4, "lo', "\n\n"])
def test_a_cut_line_of_metrics_does_not_stop_an_evaluation(
    tail: str, flowlm: Callable, flow_run: Path
) -> None:
    with (flow_run / "metrics.jsonl").open("a") as file:
        file.write(tail)
    answer = flowlm("evaluate", flow_run, "--num", 2, "--steps", 1)
    assert answer.status == 0, answer.err


@pytest.mark.parametrize("tail", ['{"step": 4, "lo', "\n\n"])
def test_a_cut_line_of_metrics_does_not_stop_a_resumption(
    tail: str, flowlm: Callable, flow_run: Path
) -> None:
    before = (flow_run / "metrics.jsonl").read_text()
    with (flow_run / "metrics.jsonl").open("a") as file:
        file.write(tail)
    assert flowlm("train", "--resume", flow_run).status == 0
    assert (flow_run / "metrics.jsonl").read_text() == before


def test_altered_tokens_are_refused(flowlm: Callable, flow_run: Path) -> None:
    file = flow_run / "tokens" / "train.bin"
    file.write_bytes(flipped(file.read_bytes(), 0))
    flowlm("train", "--resume", flow_run).refusal(file)


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_text_that_changed_is_not_read_with_a_tokenizer_of_its_own(
    command: str, train: Callable, flowlm: Callable, tmp_path: Path
) -> None:
    # Both alphabets have eight letters: as numbers, tokens of the one fit a model of the other.
    file, out = tmp_path / "text.txt", tmp_path / "run"
    file.write_text("abcdefgh\n" * 300)
    assert train("text-masked", out, "--data.path", file).status == 0
    shutil.rmtree(out / "tokens")
    file.write_text("rstuvwxy\n" * 300)
    evaluation = ["evaluate", out, "--num", 2, "--steps", 1]
    answer = flowlm(*(evaluation if command == "evaluate" else ["train", "--resume", out]))
    if answer.status:
        answer.refusal()
    elif command == "evaluate":
        assert not (out / "tokens").exists(), "an evaluation writes no tokens into a run"
    else:
        used = Tokenizer.load(out / "tokens" / "tokenizer.json").fingerprint
        assert used == Tokenizer.load(out / "tokenizer.json").fingerprint


def test_an_export_has_no_curve_but_can_be_measured(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowlm import load

    monkeypatch.chdir(tmp_path)
    load(runs / "flow").save("export")
    before = contents(Path("export"))
    answer = flowlm("evaluate", "export", "--num", 2, "--steps", 1)
    assert answer.status == 0, answer.err
    assert Path("reports/export/report.json").exists()
    assert contents(Path("export")) == before
