"""What judges make of texts, against loops and closed forms."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowlm.errors import Refusal
from flowlm.evaluate.judge import Judge, Reader, Scored
from flowlm.evaluate.mauve import k_means, mauve, overlap
from flowlm.evaluate.measure import Pooled, drawn, figure
from flowlm.evaluate.measures import Written, figures
from flowlm.evaluate.neighbours import NEIGHBOURS, covered
from flowlm.evaluate.ranks import nats_and_ranks, rank_chi2, rank_counts, rank_edges
from gpt2 import write

# --- a causal model from elsewhere ----------------------------------------------------------------

SENTENCES = (
    "the cat sat on the mat",
    "a dog ran",
    "x",
    "",
    "the café <|endoftext|> never read",
    "<|endoftext|>the cat",
    "the old tree " * 20,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return write(tmp_path_factory.mktemp("judges") / "small")


@pytest.fixture(scope="module")
def judge(folder: Path):
    from flowlm.judges.causal import causal_judge

    return causal_judge(folder, "small", lambda ids: SENTENCES[ids[0]], torch.device("cpu"))


@pytest.fixture(scope="module")
def said(judge) -> Scored:
    return judge.score(torch.arange(len(SENTENCES))[:, None])


def by_hand(judge, text: str) -> tuple[float, int, list[int], torch.Tensor]:
    """One token after the other, each from a prefix of its own, without a softmax function."""
    ids = judge.tokenizer(text, add_special_tokens=False)["input_ids"][:32]
    if 0 in ids:
        ids = ids[: ids.index(0) + 1]
    nats, ranks = 0.0, []
    for i in range(1, len(ids)):
        with torch.no_grad():
            logits = judge.model(torch.tensor([ids[:i]])).logits[0, -1].double().tolist()
        most = max(logits)
        nats += math.log(sum(math.exp(z - most) for z in logits)) + most - logits[ids[i]]
        ranks.append(sum(z > logits[ids[i]] for z in logits))
    if not ids:
        return 0.0, 0, [], torch.zeros(16)
    with torch.no_grad():
        states = judge.model.transformer(torch.tensor([ids])).last_hidden_state[0]
    return nats, max(0, len(ids) - 1), ranks, states.mean(0)


def test_the_published_protocol_by_hand(judge, said: Scored) -> None:
    expected = [by_hand(judge, text) for text in SENTENCES]
    assert said.tokens.tolist() == [count for _, count, _, _ in expected]
    assert said.nats.tolist() == pytest.approx([nats for nats, *_ in expected], rel=1e-4)
    for features, (*_, states) in zip(said.features, expected):
        assert torch.allclose(features, states, atol=1e-4)
    every = torch.tensor([rank for _, _, ranks, _ in expected for rank in ranks])
    edges = rank_edges(judge.vocab).tolist()
    counts = [
        int(((every >= low) & (every < high)).sum()) for low, high in zip(edges, [*edges[1:], 999])
    ]
    assert said.ranks.tolist() == counts
    assert sum(counts) == int(said.tokens.sum())


def test_the_first_token_what_follows_the_end_and_what_is_too_long_cost_nothing(
    judge, said: Scored
) -> None:
    first = judge.tokenizer("the")["input_ids"]
    assert len(first) == 1
    # "x" and "" have nothing to score, and a text that begins with its end neither.
    assert said.tokens.tolist()[2:4] == [0, 0]
    assert (said.tokens[5], said.nats[5], said.bytes[5]) == (0, 0, 0)
    assert said.tokens[6] == 31, "32 positions, the first not scored"
    until = "the café <|endoftext|>"
    assert said.tokens[4] == len(judge.tokenizer(until)["input_ids"]) - 1


def test_bytes_are_those_of_what_is_scored(judge, said: Scored) -> None:
    assert said.bytes[0] == len(b" cat sat on the mat")
    assert said.bytes[4] == len(" café <|endoftext|>".encode())
    # A token of bytes is spelt with one sign a byte.
    tokens = judge.tokenizer.tokenize(SENTENCES[6])[1:32]
    assert said.bytes[6] == sum(map(len, tokens)) < len(SENTENCES[6])


def test_neighbours_change_nothing(judge, said: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlm.judges.causal.LOGITS", 1)
    alone = judge.score(torch.arange(len(SENTENCES))[:, None])
    assert torch.allclose(alone.nats, said.nats, rtol=1e-5)
    assert torch.equal(alone.ranks, said.ranks)
    assert torch.allclose(alone.features, said.features, atol=1e-5)


def test_its_fingerprint_is_that_of_its_file(judge, folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert judge.fingerprint == digest


def spoil(folder: Path, kind: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    match kind:
        case "no weights":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        case "other code":
            config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own"}}
            (folder / "own.py").write_text("raise SystemExit('run')")
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "more layers":
            config["n_layer"] = 3
        case "damaged":
            (folder / "model.safetensors").write_bytes(b"x" * 100)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "kind", ["no weights", "other code", "no tokenizer", "more layers", "damaged"]
)
def test_a_folder_that_is_no_judge_is_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    from flowlm.judges.causal import causal_judge

    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    spoil(place, kind)
    with pytest.raises(Refusal, match=r"copied.*--judge") as refused:
        causal_judge(place, "copied", str, torch.device("cpu"))
    assert "\n" not in str(refused.value)


def test_a_model_that_sees_what_it_predicts_is_refused(folder: Path, tmp_path: Path) -> None:
    import transformers

    from flowlm.judges.causal import causal_judge

    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = transformers.BertConfig(
        vocab_size=290, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.BertLMHeadModel(config).save_pretrained(place)
    with pytest.raises(Refusal, match="sees the tokens"):
        causal_judge(place, "bert", str, torch.device("cpu"))


# --- ranks ----------------------------------------------------------------------------------------


def test_bins_are_25_ranks_and_10_logarithmic_ones() -> None:
    edges = rank_edges(50_257).tolist()
    assert len(edges) == 35
    assert edges[:26] == list(range(26))
    ratios = [b / a for a, b in zip(edges[25:], [*edges[26:], 50_257])]
    assert ratios == pytest.approx([(50_257 / 25) ** 0.1] * 10, rel=0.03)
    assert rank_edges(7).tolist() == list(range(7))
    assert rank_edges(28).tolist() == list(range(28)), "no bin is empty"


def test_ranks_count_likelier_tokens() -> None:
    logp = torch.randn(4, 5, 60, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    tokens = torch.arange(20).view(4, 5)
    nats, ranks = nats_and_ranks(logp, tokens)
    order = logp.argsort(-1, descending=True)
    assert torch.equal(order.gather(-1, ranks[..., None]).squeeze(-1), tokens)
    assert float(nats[1, 2]) == -float(logp[1, 2, 7])
    assert int(rank_counts(ranks, 60).sum()) == 20


def test_chi_square_of_ranks_by_hand() -> None:
    p, q = torch.tensor([6, 2, 0]), torch.tensor([1, 2, 0])
    shares = [1.5 / 4.5, 2.5 / 4.5, 0.5 / 4.5]
    expected = sum((a - b) ** 2 / b for a, b in zip([0.75, 0.25, 0.0], shares))
    assert rank_chi2(p, q) == pytest.approx(expected)
    many = torch.tensor([60_000, 30_000, 10_000])
    assert rank_chi2(many, many) == pytest.approx(0, abs=1e-8)


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

    name, about, fingerprint = "counts", "counts", "counts"

    def score(self, tokens: Tensor) -> Scored:
        counts = torch.full((len(tokens),), tokens.shape[1])
        ranks = tokens.flatten().bincount(minlength=5)
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
    assert found["rank_chi2"] == rank_chi2(own.ranks, theirs.ranks)
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
        return Scored(counts * 0.5, counts, counts + 1, torch.ones(35).long(), torch.ones(n, 2))

    whole = Scored.joined([part(2), part(3)])
    assert whole.tokens.tolist() == [2, 2, 3, 3, 3]
    assert whole.ranks.tolist() == [2.0] * 35
    assert whole.features.shape == (5, 2)
