"""What is measured of a trained model: likelihood, texts under two judges, filled gaps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowlm.core import Batch
from flowlm.core.types import FREE, Tokens
from flowlm.data.loader import sequential
from flowlm.data.tokens import open_tokens
from flowlm.evaluate.diversity import corpus_entropy, unique_share
from flowlm.evaluate.extent import count_to_stop, ended
from flowlm.evaluate.ngrams import KnownText
from flowlm.evaluate.real import RealText
from flowlm.experiment import Text
from flowlm.judges.own import RunJudge
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.run import assess
from flowlm.sampling import Bridge, Euler, Jumps, Replace, Sampler, Unmask

EVALUATIONS = (1, 2, 4, 8, 16, 64)
TEMPERATURES = (1.0, 0.85, 0.7)
"""At which every model writes, to compare at equal entropy."""
TEXTS = 512
HELD_OUT = 512
"""Held-out texts that are read and compared with."""
INFILLED = 256
"""Held-out texts with gaps."""
JUDGES = "judges.json"
"""File beside the runs: the names of the runs that judge."""

Figures = dict[str, Any]


def ways(sampler: Sampler) -> dict[str, Sampler]:
    """Samplers with which a model may write, by name: those of its kind that need no training."""
    match sampler:
        case Jumps():
            return {"jumps": Jumps()}
        case Euler():
            return {"jumps": Jumps(), "bridge": Bridge()}
        case Unmask():
            return {"random": Unmask(), "confidence": Unmask(order="confidence")}
        case Replace():
            return {"draw": Replace(), "posterior tail": Replace(tail="posterior")}
        case other:
            return {"own": other}


def held_out_of(model: LanguageModel) -> Batch:
    """Real texts that no training of the world sees."""
    data = model.experiment.data
    assert isinstance(data, Text)
    prepared = open_tokens(data.path or "", verify=False)
    return next(sequential(prepared.valid, model.length, HELD_OUT))


def measured(run: Path) -> Figures:
    """All figures of a run whose judges lie beside it."""
    model = load(run, "cpu")
    judges = judges_beside(run)
    text = held_out_of(model)
    return {
        "held_out": assess.held_out(model, text),
        "real": judged(text.tokens, judges, None),
        "written": written(model, judges, real_text(model, text)),
        "infilled": infilled(model, judges, text.tokens[:INFILLED]),
    }


def likely(run: Path) -> Figures:
    """The likelihood alone: of a judge, or of a flow that is only trained."""
    model = load(run, "cpu")
    return {"held_out": assess.held_out(model, held_out_of(model))}


def judges_beside(run: Path) -> list[RunJudge]:
    """The judges that a study has trained in the directory of a run."""
    names = json.loads((run.parent / JUDGES).read_text())
    return [RunJudge(name, "", load(run.parent / name, "cpu")) for name in names]


def real_text(model: LanguageModel, text: Batch) -> RealText:
    """The held-out texts, and what was learnt."""
    assert isinstance(model.experiment.data, Text)
    assert model.tokenizer is not None
    prepared = open_tokens(model.experiment.data.path or "", verify=False)
    stop = model.tokenizer.stop
    return RealText(text.tokens, KnownText(prepared.train, stop), model.tokenizer.decode, stop)


def judged(tokens: Tokens, judges: Sequence[RunJudge], real: RealText | None) -> Figures:
    """Texts under every judge, nats per token; entropy of all words; what is copied."""
    stop = None if judges[0].model.tokenizer is None else judges[0].model.tokenizer.stop
    tokens = ended(tokens, stop)
    scored = [judge.score(tokens) for judge in judges]
    found: Figures = {
        "nats": [float(read.nats.sum() / read.tokens.sum()) for read in scored],
        "entropy": corpus_entropy(tokens, stop),
        "unique": unique_share(tokens),
        "tokens": float(scored[0].tokens.double().mean()),
    }
    if real is not None:
        novel = None if real.known is None else real.known.novelty(tokens, 4)
        found["novel_4"] = None if novel is None else float(novel.nanmean())
        for kind in ("hand", "bigram"):
            distance = real.energy(tokens, kind)
            found[f"energy_{kind}"] = None if distance is None else distance[0]
    return found


def written(
    model: LanguageModel, judges: Sequence[RunJudge], real: RealText
) -> dict[str, dict[str, dict[str, Figures]]]:
    """Figures by sampler, by evaluations and by temperature."""
    found: dict[str, dict[str, dict[str, Figures]]] = {}
    seed = model.experiment.train.seed
    for name, way in ways(model.experiment.sampler).items():
        of = found[name] = {}
        for count, steps in steps_of(way, model.length).items():
            texts = of[str(count)] = {}
            for temperature in TEMPERATURES if is_cooled(way, steps) else (1.0,):
                sampler = warmed(way, temperature)
                tokens = model.sample(TEXTS, steps, seed, sampler=sampler).cpu()
                texts[str(temperature)] = judged(tokens, judges, real)
    return found


def steps_of(sampler: Sampler, length: int) -> dict[int, int]:
    """The most steps that take no more evaluations, by EVALUATIONS; left to right as it goes."""
    if not sampler.counts_steps:
        return {sampler.evaluations(1, length): 1}
    found = {}
    for count in EVALUATIONS:
        fitting = (k for k in range(count, 0, -1) if sampler.evaluations(k, length) <= count)
        if steps := next(fitting, 0):
            found[count] = steps
    return found


def is_cooled(sampler: Sampler, steps: int) -> bool:
    """Whether temperature changes what is written: a jump's last step reads off its answer."""
    return "temperature" in vars(sampler) and (steps > 1 or not isinstance(sampler, Jumps))


def warmed(sampler: Sampler, temperature: float) -> Sampler:
    """The same sampler at another temperature."""
    if temperature == 1:
        return sampler
    return replace(sampler, temperature=temperature)  # pyright: ignore[reportArgumentType, reportCallIssue]


def gaps(tokens: Tokens, stop: int | None) -> dict[str, Tensor]:
    """Tokens that are to be written, (n, l): the middle half of a text, or half at random."""
    count, length = tokens.shape
    size = torch.full((count,), length) if stop is None else count_to_stop(tokens, stop)
    place, size = torch.arange(length), size[:, None]
    middle = (place >= size // 4) & (place < size // 4 + (size + 1) // 2)
    chance = torch.rand(count, length, generator=torch.Generator().manual_seed(5))
    return {"middle half": middle, "half at random": (chance < 0.5) & (place < size)}


def infilled(
    model: LanguageModel, judges: Sequence[RunJudge], tokens: Tokens
) -> dict[str, dict[str, dict[str, Figures]]] | None:
    """Held-out texts whose gaps the model fills: nats of the whole texts under the judges.

    Beside them the entropy of the words written, and how many are those that stood there.
    """
    if not model.experiment.method.infills:
        return None
    stop = None if model.tokenizer is None else model.tokenizer.stop
    found: dict[str, dict[str, dict[str, Figures]]] = {}
    for name, gap in gaps(tokens, stop).items():
        found[name] = {"real": {"1.0": _filled(tokens, tokens, gap, judges, stop)}}
        for way, sampler in ways(model.experiment.sampler).items():
            for count in (1, 2, 4, 8, 16):
                of = found[name][f"{way}, {count}"] = {}
                for temperature in (1.0, 0.8):
                    turned = warmed(sampler, temperature)
                    prompt = tokens.masked_fill(gap, FREE)
                    texts = model.sample(None, count, 0, prompt, sampler=turned).cpu()
                    of[str(temperature)] = _filled(texts, tokens, gap, judges, stop)
    return found


def _filled(
    texts: Tokens, real: Tokens, gap: Tensor, judges: Sequence[RunJudge], stop: int | None
) -> Figures:
    return {
        "nats": judged(texts, judges, None)["nats"],
        "entropy": corpus_entropy(texts[gap][None]),
        "as it was": float((texts == real)[gap].double().mean()),
    }
