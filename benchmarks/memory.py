"""Memory of a training step at the published size: counted exactly, nothing allocated.

python -m benchmarks.memory              about three minutes
python -m benchmarks.memory --measured   also steps that are run, at a size that 24 GiB hold densely
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace

from benchmarks.cells import Numbers, in_a_process, step_cell, table
from benchmarks.floor import fake_tensors
from benchmarks.provenance import write_result
from benchmarks.rivals import Case, Precision, rival, texts
from flowlm.run.footprint import Footprint
from flowlm.train import Plan, State, train

PUBLISHED = Case("flow", vocab=50_258, batch=32, length=1024)
ROOMS = (24, 80, 141)
"""Memories, in GiB, whose largest batches are counted."""
DENSE_LIMIT = 12 * 2**30
"""Bytes counted for the largest dense step which is run. A process takes up to 1.7 times as much
(kernels' scratch memory, the allocator's gaps), which 24 GiB hold."""


def main() -> None:
    """Count, perhaps measure, print the tables, write benchmarks/results/memory.json."""
    if sys.argv[1:] and sys.argv[1] != "--measured":
        print(json.dumps(step_cell(json.loads(sys.argv[1]))))
        return
    rows: list[Numbers] = []
    conditions: list[tuple[bool, Precision]] = [(False, "float32"), (True, "float32")]
    for recompute, precision in [*conditions, (True, "bfloat16")]:
        for name in ("flow", "dense", "masked", "map"):
            case = replace(PUBLISHED, rival=name, recompute=recompute, precision=precision)
            rows.append({"case": asdict(case), **counted(case)})
            print(name, precision, recompute, rows[-1]["peak"] / 2**30, flush=True)
    show(rows)
    result: Numbers = {"counted": rows, "largest_batch": largest_batches()}
    if "--measured" in sys.argv:
        result["measured"] = run_where_dense_fits()
        show(result["measured"])
    command = " ".join(["python -m benchmarks.memory", *sys.argv[1:]])
    write_result("memory", {"command": command, **result})


def counted(case: Case) -> Numbers:
    """Peak bytes of the second step, weights, gradients, optimizer and average included."""
    with fake_tensors(case.vocab):
        model, loss = rival(case)
        plan = Plan(steps=2, batch=case.batch, warmup=1, precision=case.precision)
        state, batch = State(model, plan), texts(case)
        with Footprint(*model.parameters(), *state.average.weights.values()) as seen:
            for _ in train(state, loss, lambda step: batch, plan):
                pass
    return {"peak": seen.peak, "largest": seen.largest}


@dataclass(frozen=True)
class Line:
    """Peak bytes of a step as a line in its texts."""

    fixed: float
    text: float

    def texts(self, room: float) -> int:
        """How many texts fit into so many bytes."""
        return max(0, int((room - self.fixed) / self.text))


def line(case: Case) -> Line:
    """Through the counts of two batches, where what grows with texts is the peak."""
    few, many = (counted(replace(case, batch=n))["peak"] for n in (16, 32))
    text = (many - few) / 16
    return Line(many - 32 * text, text)


def largest_batches() -> list[Numbers]:
    """Texts of 1,024 tokens that a step has room for, activations recomputed."""
    found, rows = [], []
    for name in ("flow", "dense", "masked"):
        grows = line(replace(PUBLISHED, rival=name, recompute=True))
        fits = {gib: grows.texts(gib * 2**30) for gib in ROOMS}
        found.append({"rival": name, "texts": fits})
        rows.append([name, *(str(n) for n in fits.values())])
    print(table(["largest batch", *(f"{gib} GiB" for gib in ROOMS)], rows), flush=True)
    return found


def run_where_dense_fits() -> list[Numbers]:
    """Steps at the largest batch whose dense step is counted to fit, all recomputing."""
    case = replace(PUBLISHED, recompute=True, keep=False)
    batch = line(replace(case, rival="dense")).texts(DENSE_LIMIT)
    rows = []
    for name in ("flow", "dense", "masked"):
        cell = replace(case, rival=name, batch=batch)
        settings = {"repeats": 1, "threads": os.cpu_count() or 1}
        ran = in_a_process("benchmarks.memory", asdict(cell) | settings)
        rows.append({"case": asdict(cell), "counted": counted(cell)["peak"], "ran": ran})
        rows[-1]["peak"] = ran.get("bytes", 0)
        print(name, batch, rows[-1]["counted"] / 2**30, ran, flush=True)
    return rows


def show(rows: list[Numbers]) -> None:
    """GiB, and how many times ours under the same conditions."""
    lines = []
    for row in rows:
        case = row["case"]
        ours = next(other["peak"] for other in rows if other["case"] == {**case, "rival": "flow"})
        largest = f"{row['largest'] / 2**20:,.0f}" if "largest" in row else ""
        lines.append(
            [
                case["rival"],
                case["precision"],
                "recomputed" if case["recompute"] else "kept",
                f"{row['peak'] / 2**30:.2f}",
                f"{row['peak'] / ours:.2f}",
                largest,
            ]
        )
    head = ["step", "precision", "activations", "peak GiB", "of ours", "largest tensor, MiB"]
    print(table(head, lines), flush=True)


if __name__ == "__main__":
    main()
