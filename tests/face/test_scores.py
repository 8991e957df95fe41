"""LanguageModel.score: against the methods' own numbers, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

import flowlm
from flowlm.core import Batch, Streams
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.model.language_model import LanguageModel
from flowlm.nn import Size
from flowlm.sampling import LeftToRight, Unmask
from flowlm.tasks.generated import Generated
from flowlm.train import Plan

TOKENIZER = Tokenizer.characters(["abcdefgh"])


def small(method: Method) -> LanguageModel:
    torch.manual_seed(0)
    size = Size(1, 16, 2, 8, 0.0, None, None)
    network = method.network(size, TOKENIZER.vocab, 6)
    torch.nn.init.normal_(network.head.weight)
    sampler = LeftToRight() if isinstance(method, Autoregressive) else Unmask()
    experiment = Experiment("small", method, sampler, Generated(), size, Plan(steps=1, batch=1))
    return LanguageModel(experiment, network, TOKENIZER, 6)


def test_left_to_right_is_exact_and_reads_short_texts() -> None:
    model = small(Autoregressive())
    scores = model.score(["abc", "abcdefghab"])
    assert scores.kind == "exact"
    assert torch.equal(scores.error, torch.zeros(2))
    assert scores.tokens.tolist() == scores.bytes.tolist() == [3, 10]
    read = Batch(torch.tensor([TOKENIZER.encode("abcdef")]), torch.ones(1, 6))
    first = model.experiment.method.nll(model.network, read, Streams.of(0, count=1))
    assert first is not None
    assert float(scores.nats[0]) == pytest.approx(float(first[0, :3].mean()), abs=1e-6)
    alone = model.score(["ghab"])
    both = float(first.sum()) + 4 * float(alone.nats)
    assert float(scores.nats[1]) == pytest.approx(both / 10, abs=1e-6)


def test_a_bound_has_an_error_that_tells_how_far_it_is_off() -> None:
    """Readings with different seeds spread as the error says, around what many draws give."""
    model = small(Masked())
    texts = ["abcdef", "hhhhhh", "hgfedc"]
    exact = model.score(texts, draws=800).nats
    told = [model.score(texts, draws=8, seed=seed) for seed in range(60)]
    nats, errors = (torch.stack([getattr(s, name) for s in told]) for name in ("nats", "error"))
    assert torch.allclose(errors.square().mean(0).sqrt(), nats.std(0), rtol=0.35)
    assert ((nats.mean(0) - exact).abs() < 4 * nats.std(0) / math.sqrt(60)).all()


def test_a_score_does_not_depend_on_the_batch() -> None:
    model = small(Masked())
    texts = ["abcdef", "hhhhhh", "hgfedc"]
    whole, parts = model.score(texts), model.score(texts, memory=0)
    assert torch.allclose(whole.nats, parts.nats, atol=1e-6)


def test_whole_windows_are_scored() -> None:
    scores = small(Masked()).score(["abcdefabcdefab"])
    assert scores.tokens.tolist() == [12]


def test_a_map_says_that_a_jump_has_no_likelihood() -> None:
    model = flowlm.load("demo")
    scores = model.score(model.generate(2, steps=4))
    assert scores.kind == "upper bound"
    assert "few jumps has no likelihood" in scores.of
    assert (scores.error > 0).all()


@pytest.mark.parametrize(
    ("texts", "said"),
    [([], "no text"), ("abcdef", "list of str"), (["abc"], "3 tokens")],
)
def test_what_cannot_be_scored_is_refused(texts: object, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        small(Masked()).score(texts)  # pyright: ignore[reportArgumentType]


def test_few_draws_are_refused() -> None:
    with pytest.raises(Refusal, match="draws"):
        small(Masked()).score(["abcdef"], draws=3)
