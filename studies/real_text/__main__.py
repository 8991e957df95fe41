"""Flows and their rivals on real text at equal compute, under two judges that teach nobody.

python -m studies.real_text --text FILE [--world sentences] [--entrants MDLM FMLM] [--budget 0.5]

Trainings run two at a time, a thread each; Ctrl-C saves, and the same command goes on. What is
trained and measured in --out already is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.trainings import carry_out, figures_of

from flowlm.files import write_text
from studies.real_text import measures, plan, report
from studies.real_text.worlds import WORLDS


def main() -> None:
    """Train, measure, print the tables, write studies/results/real-text-WORLD.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="UTF-8, a document a line")
    parser.add_argument("--world", choices=WORLDS, default="sentences")
    parser.add_argument("--entrants", nargs="+", choices=plan.ENTRANTS, default=[*plan.ENTRANTS])
    parser.add_argument("--seeds", type=int, default=1, help="seeds of training, from 0 on")
    parser.add_argument("--budget", type=float, default=1.0, help="in those of the world")
    parser.add_argument("--out", type=Path, default=Path("runs/real-text"))
    given = parser.parse_args()
    world = WORLDS[given.world].within(given.budget)
    world.prepared(given.text, given.out)
    judges = plan.judges(world, given.out)
    carry_out(judges, given.out, measures.likely)
    write_text(json.dumps([judge.name for judge in judges]), given.out / measures.JUDGES)
    chains = {
        name: [plan.chain(name, world, given.out, seed) for seed in range(given.seeds)]
        for name in given.entrants
    }
    last = [chain[-1] for of in chains.values() for chain in of]
    carry_out(last, given.out, measures.measured)
    rows = {
        name: [figures_of(chain[-1], given.out, measures.measured) for chain in of]
        for name, of in chains.items()
    }
    report.write(world.name, rows)
    print(report.shown(rows))


if __name__ == "__main__":
    main()
