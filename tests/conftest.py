"""What all tests share: types that are checked, one thread, and languages solved by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import jaxtyping

from checking import begin_anew, sampled

# Before anything imports flowlm: shapes and types of annotated calls are checked from here on.
# An int will do for a float, as it does for a static checker (PEP 484).
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.jaxtyped = sampled
jaxtyping.install_import_hook("flowlm", CHECKER)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from flowlm.core import Automaton  # noqa: E402

# Tests run several at a time, a thread each; threads that spin would take it from the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
# What fails today fails tomorrow, on slow machines too.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Networks start from torch's global generator; commands set the threads of their process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _checked_anew() -> None:
    begin_anew()


Arc = tuple[int, int, int, float]
"""Source, word, target, weight."""


def automaton(vocab: int, length: int, arcs: Sequence[Arc], final: Sequence[bool]) -> Automaton:
    source, word, target, chance = zip(*arcs)
    return Automaton(
        vocab,
        length,
        torch.tensor(source),
        torch.tensor(word),
        torch.tensor(target),
        torch.tensor(chance, dtype=torch.float64),
        torch.tensor(final),
    )


def agreeing() -> Language:
    """Three words of four: the last answers to the first. Six sentences, weights not normalised."""
    arcs = [
        (0, 0, 1, 3.0),
        (0, 1, 2, 1.5),
        (1, 2, 3, 2.0),
        (1, 3, 3, 1.0),
        (2, 2, 4, 0.5),
        (2, 3, 4, 2.0),
        (3, 0, 5, 1.0),
        (4, 1, 5, 1.0),
        (4, 2, 5, 0.25),
    ]
    return automaton(4, 3, arcs, [False, False, False, False, False, True])


def looping() -> Language:
    """Four words of three, in a loop of two states; half of the ways through end nowhere."""
    arcs = [(0, 0, 0, 0.5), (0, 1, 1, 1.0), (1, 1, 1, 0.7), (1, 2, 0, 2.0)]
    return automaton(3, 4, arcs, [True, False])


def muddled() -> Language:
    """Three words of four, with several paths to one sentence (a hidden Markov model)."""
    arcs = [
        (0, 0, 1, 1.0),
        (0, 0, 2, 0.5),
        (0, 1, 2, 2.0),
        (1, 2, 1, 1.0),
        (1, 2, 2, 0.3),
        (1, 3, 1, 0.6),
        (2, 2, 2, 1.2),
        (2, 3, 1, 0.4),
        (2, 0, 0, 0.7),
    ]
    return automaton(4, 3, arcs, [True, True, False])


@pytest.fixture(scope="session")
def agreement() -> Language:
    return agreeing()


@pytest.fixture(scope="session")
def ambiguous() -> Language:
    return muddled()


@pytest.fixture(scope="session", params=[agreeing, looping, muddled], ids=lambda f: f.__name__)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param()


@pytest.fixture(scope="session")
def fits() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Assert that counts are those of independent draws with the given probabilities."""

    def check(counts: torch.Tensor, probabilities: torch.Tensor) -> None:
        n, p = counts.sum().double(), probabilities.double().flatten()
        counts = counts.double().flatten()
        assert abs(float(p.sum()) - 1) < 1e-6
        assert counts[p == 0].sum() == 0, "something impossible was drawn"
        expected = n * p[p > 0]
        statistic = float(((counts[p > 0] - expected).square() / expected).sum())
        # Laurent and Massart (2000): P(chi2_k > k + 2 sqrt(k x) + 2 x) <= exp(-x).
        k, x = len(expected) - 1, math.log(1e5)
        assert statistic <= k + 2 * math.sqrt(k * x) + 2 * x, f"chi-square {statistic} on {k}"

    return check
