"""What an evaluation costs: `flowlm evaluate` of a text flow map against writing the same texts.

python -m benchmarks.suite [--num 1024] [--steps 1 2 4 8 32]        10 to 30 minutes

The map is a text-flow-map recipe after two steps of training: what texts cost does not depend on
what they say. Its corpus is drawn here: 60,000 lines of words by Zipf's law.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from benchmarks.provenance import write_result
from flowlm.cli import main as flowlm
from flowlm.model.loading import load

LINES, WORDS, LETTERS = 60_000, 9_000, "etaoinshrdlu"


def main() -> None:
    """Print both times and their ratio, write benchmarks/results/suite.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1024)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 32])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        run = trained(place)
        model = load(run, "cpu")
        began = time.perf_counter()
        for steps in chosen.steps:
            for _ in model.batches(chosen.num, steps, seed=0):
                pass
        writing = time.perf_counter() - began
        began = time.perf_counter()
        words = ["evaluate", run, "--num", chosen.num, "--steps", *chosen.steps]
        assert flowlm([str(word) for word in words]) == 0
        evaluating = time.perf_counter() - began
    ratio = evaluating / writing
    print(f"writing {writing:.0f} s, evaluating {evaluating:.0f} s: {ratio:.2f} times")
    write_result(
        "suite",
        {
            "command": f"python -m benchmarks.suite --num {chosen.num} --steps "
            + " ".join(map(str, chosen.steps)),
            "seconds of writing": writing,
            "seconds of evaluating": evaluating,
            "ratio": ratio,
        },
    )


def trained(place: Path) -> Path:
    """The run of a flow map."""
    text = place / "text.txt"
    text.write_text("\n".join(corpus()))
    few = ["--train.steps", "2", "--train.warmup", "1", "--train.save-every", "2"]
    data = ["--data.path", str(text), "--data.tokenizer", "bpe", "--data.vocab", "4096"]
    flow, flow_map = place / "flow", place / "map"
    assert flowlm(["train", "text-flow", *data, *few, "--out", str(flow)]) == 0
    taught = ["--method.teacher", str(flow), *few, "--out", str(flow_map)]
    assert flowlm(["train", "text-flow-map", *taught]) == 0
    return flow_map


def corpus() -> list[str]:
    """Lines of words, the k-th most frequent of which comes up as 1 / k."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 9))) for _ in range(WORDS)]
    weights = [1 / k for k in range(1, WORDS + 1)]
    return [
        " ".join(rng.choices(words, weights, k=rng.randint(8, 30))).capitalize() + "."
        for _ in range(LINES)
    ]


if __name__ == "__main__":
    main()
