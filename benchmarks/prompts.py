"""Prompts on the demo's language, trained and not, against the exact law of what is written.

python -m benchmarks.prompts [--out runs/prompts] [--demo runs/demo-seeds] [--seeds 3]

The demo's flow and map are trained with prompts in half of the texts, for as long as the demo's and
twice as long; the demo's own map, which has seen no prompt, and its masked diffusion stand beside
(python -m benchmarks.demo trains them). Held-out sentences have some of their words given; a model
writes the rest. Reported are the share of valid sentences, and how likely they are: nats per word
written, -log p(words written | words given) of the language, beside its own. Where the six words
that the topic decides are free the answers are few, and the distance to their exact law is
reported.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cells import table
from benchmarks.demo import spread as ranged
from benchmarks.provenance import write_result
from benchmarks.study import written
from benchmarks.trainings import Figures, Training, carry_out, figures_of, trainings_of
from flowlm.experiment import Experiment
from flowlm.methods.flow import Flow
from flowlm.methods.prompts import Prompts
from flowlm.recipes import demo
from flowlm.sampling import Sampler

TEXTS = 1000
EVALUATIONS = (1, 4, 8)
SHORT, ANSWERS = 16, 64
"""Sentences of which the topic is free, and answers to each."""
TOPIC = (2, 4, 7, 10, 14, 17)
"""Places of the words that the topic decides."""
FLIP = 1e-2
"""Share of words that are misheard: so a sentence that is not valid has a likelihood as well."""


def prompted(times: int) -> tuple[Experiment, ...]:
    """The demo's chain with prompts in half of the texts, `times` as long."""
    flow, flow_map = demo.map_chain()
    assert isinstance(flow.method, Flow)
    flow = replace(flow, method=replace(flow.method, prompts=Prompts(0.5)))
    return tuple(
        replace(stage, train=replace(stage.train, steps=times * stage.train.steps))
        for stage in (flow, flow_map)
    )


ENTRANTS = {"flow map, half with prompts": prompted(1), "the same, twice as long": prompted(2)}
"""What is trained here."""
UNPROMPTED = {"flow map, no prompts": "flow-map", "masked diffusion": "masked"}
"""Models of the demo that stand beside, by the names of their runs."""


def main() -> None:
    """Train, measure, print one table, write benchmarks/results/prompts.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/prompts"))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of training, from 0 on")
    parser.add_argument("--demo", type=Path, default=Path("runs/demo-seeds"))
    given = parser.parse_args()
    trainings = {
        name: [_training(stages, seed) for seed in range(given.seeds)]
        for name, stages in ENTRANTS.items()
    }
    carry_out([t for of in zip(*trainings.values()) for t in of], given.out, measured)
    figures = {
        name: [figures_of(t, given.out, measured) for t in of] for name, of in trainings.items()
    }
    for name, run in UNPROMPTED.items():
        runs = [given.demo / str(seed) / run for seed in range(given.seeds)]
        figures[name] = [{"run": run} | measured(place) for place in runs]
    file = write_result(
        "prompts",
        {
            "command": f"python -m benchmarks.prompts {' '.join(sys.argv[1:])}".strip(),
            "texts": TEXTS,
            "nats of the language per word written": language_nats(),
            "rows": [{"model": name, "seeds": of} for name, of in figures.items()],
        },
    )
    print(shown(figures))
    print(f"Written: {file}")


def _training(stages: tuple[Experiment, ...], seed: int) -> Training:
    return trainings_of([replace(s, train=replace(s.train, seed=seed)) for s in stages])[-1]


def patterns(count: int, length: int) -> dict[str, Any]:
    """Which words are given, by name, (n, l)."""
    import torch

    place = torch.arange(length)
    some = torch.rand(count, length, generator=torch.Generator().manual_seed(5)) < 0.3
    topic = torch.isin(place, torch.tensor(TOPIC))
    named = {"first 5": place < 5, "last 5": place >= length - 5, "all but the topic": ~topic}
    return {"30 % at random": some} | {k: g.expand(count, length) for k, g in named.items()}


def held_out(count: int) -> Any:
    """Sentences that no training sees, (n, l)."""
    from flowlm.core import Streams
    from flowlm.tasks.generated import Generated

    return Generated().language.sample(Streams.of(77, 7, count=count))


def measured(run: Path) -> Figures:
    """Figures of a run with nothing given, and with some words given, by evaluations."""
    from flowlm.model.loading import load

    model = load(run)
    sampler = model.experiment.sampler
    tokens = held_out(TEXTS)
    prompted = {
        name: {str(k): answers(model, sampler, k, tokens, given) for k in EVALUATIONS}
        for name, given in patterns(TEXTS, model.length).items()
    }
    return {
        "unconditional": written(model, sampler, model.experiment.train.seed, EVALUATIONS),
        "prompted": prompted,
        "distance": {str(k): distance(model.sample, sampler, k) for k in EVALUATIONS},
    }


def answers(model: Any, sampler: Sampler, steps: int, tokens: Any, given: Any) -> dict[str, float]:
    """The share of valid sentences, and nats per word written, with what the words given say."""
    found = model.sample(len(tokens), steps, 0, tokens.where(given, -1), sampler=sampler)
    language = model.experiment.data.language
    return {
        "valid": float(language.valid(found).double().mean()),
        "nats": conditional_nats(language, found, given),
    }


def conditional_nats(language: Any, tokens: Any, given: Any) -> float:
    """-log p(words written | words given), over the words written; all words are heard."""
    import torch

    heard = torch.nn.functional.one_hot(tokens, language.vocab).double()
    heard = (1 - FLIP) * heard + FLIP / language.vocab
    of_given = language.log_evidence(heard.where(given[..., None], 1.0))
    nats = of_given - language.log_evidence(heard)
    return float(nats.sum() / (~given).sum())


def language_nats() -> dict[str, float]:
    """The same of the language's own sentences."""
    from flowlm.tasks.generated import Generated

    tokens = held_out(TEXTS)
    given = patterns(*tokens.shape)
    return {name: conditional_nats(Generated().language, tokens, of) for name, of in given.items()}


def distance(sample: Callable[..., Any], sampler: Sampler, steps: int) -> dict[str, float]:
    """Total variation between answers and their exact law, a mean over sentences, and its floor.

    The floor is the distance of as many exact answers.
    """
    from flowlm.tasks.generated import Generated

    language = Generated().language
    tokens = held_out(SHORT)
    given = patterns(*tokens.shape)["all but the topic"]
    wide = tokens.where(given, -1).repeat_interleave(ANSWERS, 0)
    found = sample(len(wide), steps, 0, wide, sampler=sampler)
    exact = exact_answers(language, wide)
    of, floor = (
        statistics.mean(
            _variation(language, tokens[i], given[i], answers[i * ANSWERS : (i + 1) * ANSWERS])
            for i in range(SHORT)
        )
        for answers in (found, exact)
    )
    return {"total variation": of, "of exact answers": floor}


def exact_answers(language: Any, prompt: Any) -> Any:
    """Draws from the language given some words: word by word, each by its exact distribution."""
    from flowlm.core import Streams

    rng, tokens = Streams.of(78, count=len(prompt)), prompt.clone()
    for place in range(prompt.shape[1]):
        if bool((tokens[:, place] >= 0).all()):
            continue
        rows = language.unmasker(tokens.where(tokens >= 0, language.vocab), language.vocab)
        drawn = rows.sample(rng)[:, place]
        tokens[:, place] = drawn.where(tokens[:, place] < 0, tokens[:, place])
    return tokens


def _variation(language: Any, tokens: Any, given: Any, found: Any) -> float:
    """Half of sum |share of an answer - its probability|; answers never given have the rest."""
    import torch

    kinds, counts = found.unique(dim=0, return_counts=True)
    heard = torch.nn.functional.one_hot(tokens, language.vocab).double()
    of_given = language.log_evidence(heard.where(given[:, None], 1.0)[None])
    law = (language.log_prob(kinds) - of_given).exp()
    share = counts / counts.sum()
    return float(((share - law).abs().sum() + 1 - law.sum()) / 2)


def shown(figures: dict[str, list[Figures]]) -> str:
    """The Markdown table: mean [lowest, highest] over seeds."""
    lines = []
    for name, seeds in figures.items():
        for count in map(str, EVALUATIONS):
            cells = [[of["unconditional"][count]["valid"] for of in seeds]]
            cells += [[of["prompted"][kind][count]["valid"] for of in seeds] for kind in KINDS]
            cells.append([of["distance"][count]["total variation"] for of in seeds])
            lines.append([name, count, *map(ranged, cells)])
    heads = ["nothing given", *KINDS, "total variation, topic"]
    return table(["model", "evaluations", *heads], lines)


KINDS: Sequence[str] = ("30 % at random", "first 5", "last 5", "all but the topic")


if __name__ == "__main__":
    main()
