"""Files of a model: whole or not at all, stamped, and as open as other files."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowlm.errors import Refusal
from flowlm.files import new_directory, write_text
from flowlm.model.weights import fingerprint, read_weights, write_weights

WEIGHTS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(2.5),
    "c": torch.ones(3, dtype=torch.bfloat16),
    "d": torch.empty(0, 4),
    "e": torch.arange(8.0).view(2, 4).mT,
}


def test_weights_come_back(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_weights(WEIGHTS, file)
    for read in (read_weights(file), load_file(file)):
        assert read.keys() == WEIGHTS.keys()
        for name, tensor in WEIGHTS.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor)
    once = file.read_bytes()
    write_weights(dict(reversed(WEIGHTS.items())), file)
    assert file.read_bytes() == once


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Of the numbers too, where a safetensors file by itself has no check."""
    file = tmp_path / "model.safetensors"
    write_weights(WEIGHTS, file)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    for place in [*range(header, len(whole)), *rng.sample(range(header), 40)]:
        if whole[place : place + 1] == b" ":
            continue  # padding of the header
        bit = 1 << rng.randrange(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(Refusal, match=re.escape(str(file))):
            read_weights(file)


def test_a_file_without_a_stamp_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    assert torch.equal(read_weights(tmp_path / "other.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize(
    "other",
    [{"a": torch.zeros(2, 3)}, {"a": torch.zeros(6)}, {"b": torch.zeros(3, 2)},
     {"a": torch.zeros(3, 2).bfloat16()}, {"a": torch.ones(3, 2)}, {}],
)  # fmt: skip
def test_the_fingerprint_tells_weights_apart(other: dict) -> None:
    assert fingerprint(other) != fingerprint({"a": torch.zeros(3, 2)})
    assert fingerprint({"a": torch.zeros(3, 2)}) == fingerprint({"a": torch.zeros(2, 3).mT})


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_weights_are_as_open_as_other_files(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with new_directory(tmp_path / "export") as built:
            write_weights(WEIGHTS, built / "model.safetensors")
            write_text("{}", built / "experiment.json")
    finally:
        os.umask(before)
    modes = {f.name: f.stat().st_mode & 0o777 for f in (tmp_path / "export").iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}
    assert (tmp_path / "export").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with new_directory(target) as built:
        (built / "file").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["file"]
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "c") as built:
        (built / "file").write_text(str(1 / 0))
    (tmp_path / "empty").mkdir()
    with new_directory(tmp_path / "empty") as built:
        (built / "file").write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "empty"]
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["file"]


def test_a_place_that_is_taken_is_kept(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    for taken in ("full", "file", "file/below"):
        with pytest.raises(Refusal, match=taken), new_directory(tmp_path / taken):
            pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "precious"]
