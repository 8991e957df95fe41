"""What judges make of texts, against loops and closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.evaluate.judge import HEAD, TAIL, Judge, Reader, Scored, histogram, rank_divergence
from flowlm.evaluate.mauve import k_means, mauve, overlap
from flowlm.evaluate.measure import Pooled, drawn, figure
from flowlm.evaluate.measures import Written, figures
from flowlm.evaluate.neighbours import NEIGHBOURS, covered
from flowlm.judges.causal import CausalJudge, load_causal

WORDS = Tokenizer.words(("one", "two", "three", "four", "five"))
MOST, END = 12, 0


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> CausalJudge:
    """A GPT-2 of two small layers with a byte-level tokenizer of its own, saved and read."""
    transformers = pytest.importorskip("transformers")
    tokens = Tokenizer.bpe(["one two three four five"] * 9, 270)
    place = tmp_path_factory.mktemp("judge")
    tokens.save(place / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(place / "tokenizer.json"), eos_token="<|end|>"
    )
    fast.save_pretrained(place)
    config = transformers.GPT2Config(
        vocab_size=tokens.vocab, n_positions=MOST, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=END, eos_token_id=END,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return load_causal(place, "tiny", WORDS.plain, "cpu")


def test_a_causal_judge_follows_the_published_protocol(judge: CausalJudge) -> None:
    """Text by text, token by token: no start, the first is free, cut at MOST."""
    rows = torch.tensor([[0, 1, 2], [4, 4, 4], [1, 0, 3]])
    found = judge.score(rows)
    for i, row in enumerate(rows.tolist()):
        text = WORDS.decode(row)
        ids = judge.tokenizer(text)["input_ids"][:MOST]
        nats, ranks, states = 0.0, [], []
        for k in range(1, len(ids)):
            logits = judge.network(torch.tensor([ids[:k]])).logits[0, -1].double()
            nats -= float(logits.log_softmax(0)[ids[k]])
            ranks.append(int((logits > logits[ids[k]]).sum()))
        answer = judge.network(torch.tensor([ids]), output_hidden_states=True)
        states = answer.hidden_states[-1][0].mean(0)
        assert float(found.nats[i]) == pytest.approx(nats, rel=1e-5)
        assert int(found.tokens[i]) == len(ids) - 1
        assert int(found.bytes[i]) == len(text.encode())
        assert torch.allclose(found.features[i], states, atol=1e-5)
    assert float(found.ranks.sum()) == int(found.tokens.sum())


def test_tokens_count_up_to_the_first_end(judge: CausalJudge) -> None:
    ids = judge.tokenizer("one two")["input_ids"]

    class Reads:
        eos_token_id = END

        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [*ids, END, *ids] if text == "both" else []}

    cut = CausalJudge("t", "t", "", judge.network, Reads(), lambda row: "both" if row[0] else "")
    found = cut.score(torch.tensor([[1], [0]]))
    assert found.tokens.tolist() == [len(ids), 0]  # the end counts, the first token does not
    assert float(found.nats[1]) == 0.0
    assert not bool(found.features[1].any())
    assert figure(Pooled(found.nats, found.tokens)) == pytest.approx(
        float(found.nats[0]) / len(ids)
    )


def test_what_is_no_judge_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refusal, match="causal language model"):
        load_causal(tmp_path, "broken", WORDS.plain, "cpu")


def test_ranks_fall_into_bins_that_widen() -> None:
    vocab = 50_000
    ranks = torch.arange(vocab)
    counts = histogram(ranks, vocab)
    assert counts.sum() == vocab
    assert counts[:HEAD].tolist() == [1] * HEAD
    widths = counts[HEAD:]
    assert len(widths) == TAIL
    factor = (vocab / HEAD) ** (1 / TAIL)
    assert torch.allclose(widths[1:] / widths[:-1], torch.tensor(factor).double(), rtol=0.05)
    assert histogram(torch.tensor([0, 3]), 5).tolist() == [1, 0, 0, 1, *[0] * 31]


def test_the_divergence_of_ranks_is_chi_squared() -> None:
    p, q = torch.tensor([3.5, 0.5, 1.0]), torch.tensor([0.5, 2.5, 7.0])
    own, real = (part + 0.5 for part in (p, q))
    own, real = own / own.sum(), real / real.sum()
    wanted = sum((float(a) - float(b)) ** 2 / float(b) for a, b in zip(own, real))
    assert rank_divergence(p, q) == pytest.approx(wanted)
    assert rank_divergence(q, q) == 0


# --- MAUVE ------------------------------------------------------------------------------------


def test_the_area_of_two_bins_is_that_of_the_definition() -> None:
    p, q = np.array([0.9, 0.1]), np.array([0.3, 0.7])
    grid = np.linspace(0, 1, 27)[1:-1]
    points = []
    for a in grid:
        r = a * p + (1 - a) * q
        points.append([math.exp(-5 * sum(z * np.log(z / r))) for z in (q, p)])
    x, y = np.array([[1, 0], *points, [0, 1]]).T
    wanted = sum((x[i] - x[i + 1]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))
    assert overlap(torch.tensor(p), torch.tensor(q)) == pytest.approx(wanted, rel=1e-12)


def test_areas_at_their_ends() -> None:
    same = torch.tensor([0.25, 0.75])
    assert overlap(same, same) == pytest.approx(1)
    # A mixture that holds a share a of p is -log a away from it: the curve is that of a^5.
    apart = overlap(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert apart < 0.01


def test_texts_of_one_kind_overlap_and_of_two_do_not() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(200, 6, generator=rng) for _ in range(2))
    alike, shifted = mauve(x, y), mauve(x, y + torch.tensor([4.0, 0, 0, 0, 0, 0]))
    assert alike > 0.9
    assert shifted < 0.2
    assert mauve(x, y) == alike  # the seed is fixed
    assert mauve(x[:19], y) is None


def test_clusters_are_found() -> None:
    rng = torch.Generator().manual_seed(0)
    kinds = torch.randint(4, (120,), generator=rng)
    x = 20 * torch.eye(4)[kinds] + torch.randn(120, 4, generator=rng)
    labels = k_means(x.double(), 4, 0)
    assert len({(int(a), int(b)) for a, b in zip(kinds, labels)}) == 4
    assert len(set(k_means(torch.zeros(9, 2).double(), 3, 0).tolist())) == 1


def test_mauve_is_close_to_the_published_package() -> None:
    """Another implementation, with k-means of its own: apart by what its seeds are apart."""
    package = pytest.importorskip("mauve")
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.15, 0.6):
        x, y = rng.normal(size=(300, 8)), rng.normal(size=(300, 8)) + shift
        theirs = [
            package.compute_mauve(
                p_features=x, q_features=y, seed=seed, verbose=False, num_buckets="auto"
            ).mauve
            for seed in range(3)
        ]
        ours = [mauve(torch.tensor(x), torch.tensor(y), seed) for seed in range(3)]
        spread = max(np.std(theirs), np.std(ours))
        assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.02 + 3 * spread)


# --- precision and recall -----------------------------------------------------------------------


def test_neighbours_by_hand() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 3, generator=rng), torch.randn(25, 3, generator=rng) + 0.3
    one, two = ((z / z.norm(dim=1, keepdim=True)).double().numpy() for z in (x, y))
    inside = 0
    for a in one:
        for b in two:
            reach = sorted(np.linalg.norm(two - b, axis=1))[NEIGHBOURS]
            if np.linalg.norm(a - b) <= reach:
                inside += 1
                break
    assert covered(x, y) == inside / 30
    assert covered(y, y) == 1.0
    assert covered(x[:19], y) is None


class Counts(Judge):
    """Reads how often each token stands in a text; every token costs a nat."""

    name = about = fingerprint = "counts"

    def score(self, tokens: Tensor) -> Scored:
        counts = torch.full((len(tokens),), tokens.shape[1])
        ranks = tokens.flatten().bincount(minlength=HEAD + TAIL).double()
        features = torch.nn.functional.one_hot(tokens, 5).sum(1).double()
        return Scored(counts.double(), counts, counts, ranks, features)


def test_figures_of_a_judge_are_of_both_sets_of_texts() -> None:
    rng = torch.Generator().manual_seed(0)
    real, texts = torch.randint(5, (40, 6), generator=rng), torch.randint(4, (40, 6), generator=rng)
    judge = Counts()
    found = figures(Written(texts, reader=Reader(judge, real)))
    own, theirs = judge.score(texts), judge.score(real)
    assert found["mauve"] == mauve(own.features, theirs.features)
    assert found["precision"] == covered(own.features, theirs.features)
    assert found["recall"] == covered(theirs.features, own.features)
    assert found["rank_chi2"] == rank_divergence(own.ranks, theirs.ranks)
    assert not found["intervals"].keys() & {"mauve", "precision", "recall", "rank_chi2"}
    assert "mauve" not in figures(Written(texts, reader=Reader(judge, None)))


# --- ratios over texts --------------------------------------------------------------------------


def test_a_ratio_is_pooled_and_so_are_its_draws() -> None:
    top, bottom = torch.tensor([2.0, 9.0, 4.0]), torch.tensor([1, 3, 4])
    value = Pooled(top, bottom, torch.exp)
    assert figure(value) == pytest.approx(math.exp(15 / 8))
    draws = drawn(value, draws=4000)
    possible = {
        math.exp(sum(float(top[i]) for i in pick) / sum(int(bottom[i]) for i in pick))
        for pick in np.ndindex(3, 3, 3)
    }
    assert all(min(abs(float(d) - p) for p in possible) < 1e-9 for d in draws[:50])
    assert torch.equal(draws, drawn(value, draws=4000))


def test_scores_of_parts_are_those_of_the_whole() -> None:
    def part(n: int) -> Scored:
        counts = torch.full((n,), n)
        return Scored(counts * 0.5, counts, counts + 1, torch.ones(35), torch.ones(n, 2))

    whole = Scored.joined([part(2), part(3)])
    assert whole.tokens.tolist() == [2, 2, 3, 3, 3]
    assert whole.ranks.tolist() == [2.0] * 35
    assert whole.features.shape == (5, 2)
