"""What a run takes for known before it reads anything: how often words come up in its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flowlm.data.language import demo_language
from flowlm.data.tokens import open_tokens
from flowlm.experiment import Experiment
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import PosteriorInput
from flowlm.run.inputs import open_inputs
from flowlm.tasks.generated import Generated


def prior(directory: Path) -> torch.Tensor:
    return load_file(directory / "model.safetensors")["encoder.log_prior"].double().exp()


def test_a_run_believes_the_frequencies_of_its_training_text(
    experiments: Callable[..., Experiment], run: Callable[..., str], tmp_path: Path
) -> None:
    """Each token counts once more; the student of a run believes what its teacher does."""
    run(experiments("flow"), tmp_path / "flow")
    prepared = open_tokens(tmp_path / "flow" / "tokens")
    vocab = prepared.tokenizer.vocab
    counts = np.bincount(np.asarray(prepared.train, dtype=np.int64), minlength=vocab)
    assert counts.sum() == len(prepared.train) > 2000
    wanted = torch.from_numpy((counts + 1) / (counts.sum() + vocab))
    assert torch.allclose(prior(tmp_path / "flow"), wanted, rtol=1e-6)
    assert float(wanted.max() / wanted.min()) > 50
    student = experiments("flow map")
    method = FlowMap(input=PosteriorInput(), teacher=str(tmp_path / "flow"))
    # Of another text, which is not asked.
    other = tmp_path / "other.txt"
    other.write_text("abc " * 800)
    data = replace(student.data, path=str(other))
    run(replace(student, method=method, data=data), tmp_path / "map")
    assert torch.equal(prior(tmp_path / "map"), prior(tmp_path / "flow"))


def test_a_run_that_goes_on_keeps_its_prior(
    experiments: Callable[..., Experiment], run: Callable[..., str], tmp_path: Path
) -> None:
    run(experiments("flow", steps=2), tmp_path)
    before = load_file(tmp_path / "model.safetensors")["encoder.log_prior"]
    run(experiments("flow", steps=4), tmp_path, resume=True)
    after = load_file(tmp_path / "model.safetensors")["encoder.log_prior"]
    assert torch.equal(before, after)


@pytest.mark.parametrize("world", [1, 2])
def test_every_process_counts_the_same_drawn_text(
    world: int, experiments: Callable[..., Experiment], tmp_path: Path
) -> None:
    """And what it counts is near the language's own frequencies."""
    drawn = replace(experiments("flow", batch=64), data=Generated())
    counts = [open_inputs(drawn, tmp_path, rank=r, world=world).counts() for r in range(world)]
    assert all(torch.equal(count, counts[0]) for count in counts)
    language, _ = demo_language()
    wanted = language.marginals.mean(0)
    found = counts[0].double() / counts[0].sum()
    assert len(found) == language.vocab
    texts = float(counts[0].sum()) / language.length
    assert float((found - wanted).abs().max()) < 4.5 * (0.25 / texts) ** 0.5
