"""The engine of the page under node, and torch on the same noises."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flowlm.chunked.points import LazyPoint
from flowlm.chunked.space import LazyOneHot
from flowlm.core import Streams
from flowlm.data.tokenizer import Tokenizer
from flowlm.experiment import Experiment, Text
from flowlm.methods.method import Method
from flowlm.model.language_model import LanguageModel
from flowlm.model.page import facts_of, packed
from flowlm.nn import Size
from flowlm.page.alone import joined
from flowlm.sampling import Frame, Sampler
from writing import usual

NODE = shutil.which("node")
DRIVER = """
const { readFileSync } = await import("node:fs");
const { facts, weights, films, seeds } = JSON.parse(readFileSync(0, "utf8"));
const model = new Model(facts, weights);
const written = films.map(({ fresh, ...film }) => {
  const renewed = fresh?.values();
  const asked = { ...film, fresh: fresh && (() => renewed.next().value) };
  return [...model.film(asked)].map((frame) => ({ ...frame, logp: [...frame.logp] }));
});
const noises = seeds.map((seed) => {
  const stream = new Stream(seed);
  return [1, 2].map(() => [...stream.normal(facts.length, facts.vocab)]);
});
console.log(JSON.stringify({ written, noises }));
"""


def made(method: Method, size: Size, length: int, vocab: int, sampler: Sampler | None = None):
    """A model of random weights, as a page stores them."""
    tokenizer = Tokenizer.characters(["".join(chr(0x4E00 + i) for i in range(vocab))])
    network = method.network(size, tokenizer.vocab, length)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    experiment = Experiment("mine", method, sampler or usual(method), Text(length=length), size)
    return rounded(LanguageModel(experiment, network, tokenizer, length))


@torch.no_grad()
def rounded(model: LanguageModel) -> LanguageModel:
    """The model with weights that float16 has."""
    for parameter in model.network.parameters():
        parameter.copy_(parameter.half().float())
    return model


@dataclass(frozen=True)
class Film:
    """A text to write from given noise (k, l, v): the first, and one for each renewal."""

    noise: Tensor
    steps: int
    sampler: Sampler
    given: list[int] = field(default_factory=list)

    def asked(self) -> dict[str, Any]:
        """As the engine reads it; the sampler is the model's own but for these settings."""
        first, *fresh = (rows.flatten().tolist() for rows in self.noise)
        told = {name: vars(self.sampler)[name] for name in ("gamma", "temperature")
                if name in vars(self.sampler)}  # fmt: skip
        given = {"given": self.given} if self.given else {}
        return {"steps": self.steps, "noise": first, "fresh": fresh, **told, **given}

    @torch.no_grad()
    def by_torch(self, model: LanguageModel) -> list[Frame]:
        """The frames of torch."""
        method, vocab = model.experiment.method, model.network.vocab
        noises = Noises(vocab, iter(self.noise))
        denoiser = replace(method.denoiser(model.network), space=noises)
        prompt = torch.tensor([self.given or [-1] * model.length])
        rng = Streams.of(0, count=1)
        return list(self.sampler.frames(denoiser, prompt, self.steps, rng))


@dataclass(frozen=True)
class Noises(LazyOneHot):
    """One-hot space whose noise is given."""

    rows: Iterator[Tensor]

    def noise(self, rng: Streams, length: int) -> LazyPoint:
        """The next."""
        return self.from_one_hot(next(self.rows)[None])


def answers(
    model: LanguageModel, films: Sequence[Film], seeds: Sequence[int] = ()
) -> dict[str, Any]:
    """Frames of every film, and two noises of every seed, by the engine."""
    asked = {
        "facts": json.loads(facts_of(model, "mine")), "weights": packed(model.weights),
        "films": [film.asked() for film in films], "seeds": list(seeds),
    }  # fmt: skip
    return run(joined("engine/model.js") + DRIVER, asked)


def run(script: str, asked: object = None) -> Any:
    """What a script prints as JSON, given JSON as its input."""
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", script],
        input=json.dumps(asked), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(model: LanguageModel, films: Sequence[Film]) -> Iterator[float]:
    """Largest difference of log-probabilities where the model writes; tokens must be equal.

    Of given tokens float32 tells no less than a thousandth of a nat apart: they count 1e4.
    """
    for film, frames in zip(films, answers(model, films)["written"], strict=True):
        free = torch.tensor(film.given or [-1] * model.length) == -1
        most = 0.0
        for ours, theirs in zip(film.by_torch(model), frames, strict=True):
            assert ours.tokens()[0].tolist() == theirs["tokens"]
            logp = ours.prediction.log_probs()[0]
            apart = (torch.tensor(theirs["logp"]).view_as(logp) - logp)[free].abs()
            most = max(most, float(apart.max()) if apart.numel() else 0.0)
        yield most
