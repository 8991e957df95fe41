"""Tasks against lists of all texts, plain checkers and known counts."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from flowlm.core import Listed, Streams
from flowlm.errors import Refusal
from flowlm.evaluate.controls import draw_marginals
from flowlm.evaluate.groups import valid_by_group
from flowlm.evaluate.measures import Written, figures
from flowlm.evaluate.real import RealText
from flowlm.experiment import DATA, Text
from flowlm.tasks.addition import Addition
from flowlm.tasks.queens import Queens
from flowlm.tasks.sudoku import Sudoku, first_row_in_order
from flowlm.tasks.task import Task

TASKS = [kind() for kind in DATA.values() if kind is not Text]
PARTED = [Queens(6, 0.5), Queens(8, 0.3), Sudoku(0.5), Addition(1, 0.8), Addition(3, 0.9)]


def named(task: Task) -> str:
    return repr(task)


def attacks(rows: tuple[int, ...]) -> bool:
    pairs = itertools.combinations(enumerate(rows), 2)
    return any(a == b or abs(a - b) == j - i for (i, a), (j, b) in pairs)


def is_grid(cells: list[int]) -> bool:
    rows = [cells[6 * r : 6 * r + 6] for r in range(6)]
    boxes = [
        [rows[r + i][c + j] for i in range(2) for j in range(3)] for r in (0, 2, 4) for c in (0, 3)
    ]
    return all(sorted(unit) == [*range(6)] for unit in (*rows, *map(list, zip(*rows)), *boxes))


def is_sum(tokens: list[int], digits: int) -> bool:
    text = "".join((*map(str, range(10)), "+", "=")[token] for token in tokens)
    if text[digits] != "+" or text[2 * digits + 1] != "=" or text.count("+") + text.count("=") != 2:
        return False
    first, second, total = text[:digits], text[digits + 1 : 2 * digits + 1], text[2 * digits + 2 :]
    return "0" not in (first[0], second[0]) and int(first) + int(second) == int(total)


def checked(task: Task, row: list[int]) -> bool:
    """Whether a text is right, by a checker of its own."""
    match task:
        case Queens():
            return not attacks(tuple(row))
        case Sudoku():
            return is_grid(row)
        case Addition():
            return is_sum(row, task.digits)
    raise AssertionError(task)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_a_task_keeps_its_word(task: Task) -> None:
    task.require()
    assert task.vocab == len(task.words) == len(set(task.words)) == task.tokenizer().vocab
    texts = {part: task.sample(Streams.of(1, count=40), part) for part in ("learnt", "held out")}
    for tokens in texts.values():
        assert tokens.shape == (40, task.length)
        assert bool(task.valid(tokens).all())
    again = task.sample(Streams.of(1, count=3, first=7), "learnt")
    assert torch.equal(again, texts["learnt"][7:10])
    spelt = task.tokenizer().decode(texts["learnt"][0].tolist())
    assert [task.words.index(word) for word in spelt.split()] == texts["learnt"][0].tolist()
    assert task.fingerprint == type(task)().fingerprint
    drawn = draw_marginals(task, Streams.of(2, count=2000))
    share = float(task.valid(drawn).double().mean())
    spread = 5 * math.sqrt(task.marginals_valid / 2000) + 1e-9
    assert share == pytest.approx(task.marginals_valid, abs=spread)


@pytest.mark.parametrize("task", PARTED, ids=named)
def test_parts_are_told_apart_and_nothing_is_in_both(task: Task) -> None:
    learnt, rest = (task.sample(Streams.of(3, count=300), part) for part in ("learnt", "held out"))
    assert not bool(task.novel(learnt).any())
    assert bool(task.novel(rest).all())
    share = float(task.novel(task.sample(Streams.of(4, count=2000), "all")).double().mean())
    assert share == pytest.approx(1 - vars(task)["share"], abs=0.06 if task.solutions > 9 else 0.3)
    spoilt = changed(rest)
    assert not bool(task.novel(spoilt)[~task.valid(spoilt)].any())


def changed(tokens: Tensor) -> Tensor:
    """The texts with two tokens exchanged, or one drawn anew."""
    rng, tokens = random.Random(0), tokens.clone()
    for row in tokens:
        i, j = rng.sample(range(len(row)), 2)
        if rng.random() < 0.5:
            row[i], row[j] = row[j].item(), row[i].item()
        else:
            row[i] = rng.randrange(int(tokens.max()) + 1)
    return tokens


@pytest.mark.parametrize("task", PARTED, ids=named)
def test_what_is_right_is_decided_as_by_hand(task: Task) -> None:
    right = task.sample(Streams.of(5, count=200), "all")
    tokens = torch.cat([right, changed(right), draw_marginals(task, Streams.of(6, count=100))])
    wanted = [checked(task, row) for row in tokens.tolist()]
    assert task.valid(tokens).tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


@pytest.mark.parametrize(
    ("side", "count"), [(4, 2), (5, 10), (6, 4), (7, 40), (8, 92), (12, 14200)]
)
def test_queens_have_as_many_solutions_as_is_known(side: int, count: int) -> None:
    """OEIS A000170; up to 7 by trying all placements."""
    task = Queens(side)
    assert task.solutions == len(task.language.support()[0]) == count
    assert task.entropy == pytest.approx(math.log(count) / side)
    if side <= 7:
        every = itertools.product(range(side), repeat=side)
        wanted = [list(rows) for rows in every if not attacks(rows)]
        assert task.language.support()[0].tolist() == wanted


def test_grids_are_as_many_as_is_known() -> None:
    """28,200,960 of 6 x 6 and 288 of 4 x 4 (OEIS A107739)."""
    assert Sudoku().solutions == 28_200_960
    small = first_row_in_order(2, 2)
    assert len(small) * math.factorial(4) == 288
    assert len(small.unique(dim=0)) == len(small)


def test_a_grid_is_held_out_under_all_names_of_its_digits() -> None:
    task = Sudoku()
    grids = task.sample(Streams.of(7, count=50), "held out")
    names = torch.randperm(6)
    assert bool(task.novel(names[grids]).all())
    assert float((names[grids] == grids).double().mean()) < 0.9


def test_digits_of_a_grid_are_named_evenly() -> None:
    grids = Sudoku().sample(Streams.of(8, count=3000), "learnt")
    counts = torch.nn.functional.one_hot(grids, 6).double().mean(0)
    assert float((counts - 1 / 6).abs().max()) < 5 * math.sqrt(5 / 36 / 3000)


@pytest.mark.parametrize("digits", [1, 2])
def test_the_language_of_sums_holds_the_true_ones(digits: int) -> None:
    task = Addition(digits)
    low, high = 10 ** (digits - 1), 10**digits
    ids = {word: i for i, word in enumerate(task.words)}
    wanted = {
        tuple(ids[c] for c in f"{a}+{b}={a + b:0{digits + 1}}")
        for a in range(low, high)
        for b in range(low, high)
    }
    written = task.written(torch.arange(len(wanted)))
    assert {tuple(row) for row in written.tolist()} == wanted
    assert task.solutions == len(wanted)
    assert task.entropy == pytest.approx(math.log(len(wanted)) / task.length)
    assert bool(task.language.valid(written[::40]).all())


def test_an_automaton_and_a_list_of_its_sentences_agree() -> None:
    automaton = Addition(1).language
    sentences, _ = automaton.support()
    listed = Listed(automaton.vocab, automaton.length, sentences)
    assert torch.equal(listed.support()[0], sentences)
    assert listed.entropy == pytest.approx(automaton.entropy, rel=1e-12)
    assert torch.allclose(listed.marginals, automaton.marginals, atol=1e-14)
    rng = torch.Generator().manual_seed(0)
    shape = (5, automaton.length, automaton.vocab)
    evidence = torch.randn(shape, generator=rng, dtype=torch.float64).exp()
    for name in ("log_evidence", "log_total", "posterior"):
        got, wanted = (getattr(one, name)(evidence) for one in (listed, automaton))
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-14), name
    tokens = torch.cat([sentences[:9], changed(sentences[:9])])
    for flip in (0.0, 0.01):
        assert torch.allclose(listed.log_prob(tokens, flip), automaton.log_prob(tokens, flip))
    x, t = torch.randn(shape, generator=rng, dtype=torch.float64), torch.full((5, 1), 0.6)
    both = [one.denoiser(x, t.double()).logp.exp() for one in (listed, automaton)]
    assert torch.allclose(*both, atol=1e-12)
    masked = tokens[:5].masked_fill(torch.rand(5, automaton.length, generator=rng) < 0.5, 12)
    assert torch.allclose(*(one.unmasker(masked, 12).logp.exp() for one in (listed, automaton)))


def test_a_list_is_drawn_evenly(fits) -> None:
    language = Queens(5).language
    drawn = language.sample(Streams.of(9, count=4000))
    where = (drawn[:, None] == language.sentences).all(2).double()
    assert bool((where.sum(1) == 1).all())
    fits(where.sum(0), torch.full((10,), 0.1, dtype=torch.float64))


def test_sums_are_told_by_their_longest_run_of_carries() -> None:
    task = Addition(3)
    tokens = task.sample(Streams.of(10, count=400), "all")
    names, kinds = task.groups(tokens)
    for row, kind in zip(tokens.tolist(), kinds.tolist()):
        first, second = (int("".join(map(str, row[i : i + 3]))) for i in (0, 4))
        carries = "".join(str(int(first % 10**k + second % 10**k >= 10**k)) for k in range(1, 4))
        assert kind == max(map(len, carries.split("0")))
        assert names[kind].endswith(str(kind)) or (kind == 0 and names[0] == "no carry")
    tokens[0, 0] = 0  # a leading zero
    tokens[1, 9] = (tokens[1, 9] + 1) % 10  # a false sum keeps its kind
    assert task.groups(tokens)[1][0] == -1
    assert torch.equal(task.groups(tokens)[1][1:], kinds[1:])
    table = valid_by_group(task, tokens)
    assert sum(row["texts"] for row in table) == 399
    wrong = sum(row["texts"] * (1 - row["valid"]) for row in table if row["texts"])
    assert wrong == pytest.approx(1)


def test_right_new_and_all_are_counted() -> None:
    task = Queens(6)  # four solutions, two to learn from
    tokens = task.language.support()[0][[0, 0, 1, 2]]
    wrong = torch.zeros(1, 6, dtype=torch.long)
    found = figures(Written(torch.cat([tokens, wrong]), task))
    assert found["valid"] == 0.8
    assert found["coverage"] == 0.75
    assert found["novel"] == float(task.novel(tokens).sum()) / 5
    # Of so many a handful says nothing.
    few = Sudoku().sample(Streams.of(1, count=4), "all")
    assert "coverage" not in figures(Written(few, Sudoku()))


def test_texts_that_differ_in_nothing_have_no_distance() -> None:
    """All placements have the same rows, so figures of their words cannot tell them apart."""
    task = Queens(8)
    one, two = (task.sample(Streams.of(seed, count=9), "all") for seed in (1, 2))
    real = RealText(one, None, task.tokenizer().decode)
    found = figures(Written(two, task, real=real))
    assert "energy_hand" not in found
    assert "energy_bigram" in found


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Queens(3), "from 4 to 13"), (Queens(12, 1.0), "--data.share"), (Sudoku(0.0), "0.5"),
        (Addition(4), "from 1 to 3"), (Addition(2, -1.0), "between 0 and 1"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_refused(task: Task, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        task.require()
