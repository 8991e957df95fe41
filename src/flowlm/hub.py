"""Trained models: load one, write with it, save it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Tokens
from flowlm.data.tokenizer import Tokenizer, replacing
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Generated, Text, located, read_experiment, to_json
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow_map import FlowMap
from flowlm.nn.dit import DiT

BUDGET = 2**29
"""Bytes that the states of one batch of texts may take while sampling."""


class LanguageModel:
    """A trained model, ready to write. Everything is deterministic in its seed.

    `experiment` says what it is, `network` holds the averaged weights, `tokenizer` may be None:
    then it samples tokens and only `generate` is refused.
    """

    def __init__(
        self, experiment: Experiment, network: DiT, tokenizer: Tokenizer | None, length: int
    ) -> None:
        self.experiment, self.tokenizer, self.length = experiment, tokenizer, length
        self.network = network.eval().requires_grad_(False)

    def generate(self, n: int, steps: int = 1, seed: int = 0) -> list[str]:
        """Write `n` texts in `steps` network evaluations each."""
        if self.tokenizer is None:
            raise Refusal("This model has no tokenizer: use sample() for its tokens.")
        return [self.tokenizer.decode(row) for row in self.sample(n, steps, seed).tolist()]

    def sample(self, n: int, steps: int = 1, seed: int = 0, prompt: Tokens | None = None) -> Tokens:
        """`n` texts as token ids (n, l).

        Text i depends on (seed, i) alone, not on n or on how texts are batched. `prompt` (n, l)
        holds given tokens, and -1 where the model is to write.
        """
        if seed < 0:
            raise Refusal(f"The seed is {seed}: choose 0 or more.")
        if n < 1 or steps < 1:
            raise Refusal(
                f"{n} texts in {steps} steps cannot be written: ask for at least 1 of each."
            )
        texts = []
        for first in range(0, n, size := self._texts_at_once()):
            count = min(size, n - first)
            given = None if prompt is None else prompt[first : first + count]
            *_, last = self.film(count, steps, seed, first, given)
            texts.append(last)
        return torch.cat(texts)

    @torch.no_grad()
    def film(
        self, n: int, steps: int, seed: int = 0, first: int = 0, prompt: Tokens | None = None
    ) -> Iterator[Tokens]:
        """Texts `first ... first + n` while they come into being; the last item is the answer."""
        device = self.network.head.weight.device
        if prompt is None:
            prompt = torch.full((n, self.length), FREE, device=device)
        rng = Streams.of(seed, count=n, first=first, device=device)
        yield from self.experiment.method.sample(self.network, prompt.to(device), steps, rng)

    @torch.no_grad()
    def denoise(
        self, x: Float[Tensor, "b l v"], s: Tensor, t: Tensor | None = None
    ) -> Float[Tensor, "b l v"]:
        """Probabilities of the clean tokens at a one-hot-space point x.

        s, t: clock times tau, (b,) or (b, l). With t, a flow map's delta_{s,t}; a flow has only
        s, and for a flow map t defaults to s.
        """
        method = self.experiment.method
        if not isinstance(method, Continuous):
            raise Refusal("This model reads tokens, not noisy points: denoise() needs a flow.")
        two = isinstance(method, FlowMap)
        if t is not None and not two:
            raise Refusal("This model is a flow: it reads one time, so leave t out.")
        times = [s, s if t is None else t][: 2 if two else 1]
        taus = [tau[:, None] if tau.ndim == 1 else tau for tau in times]
        point = method.space(self.network).of(x)
        return self.network(point, *taus).log_probs().exp()

    def save(self, directory: str | Path) -> None:
        """Write a self-contained export: experiment.json, model.safetensors, tokenizer.json."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_weights(dict(self.network.named_parameters()), directory / "model.safetensors")
        if self.tokenizer is not None:
            self.tokenizer.save(directory / "tokenizer.json")
        write_text(to_json(self.experiment), directory / "experiment.json")

    def _texts_at_once(self) -> int:
        # About eight tensors of the size of the state are alive in a block or a step.
        width = max(4 * self.network.size.width, self.network.vocab)
        return max(1, BUDGET // (8 * 4 * self.length * width))


def load(path: str | Path, device: str = "cpu") -> LanguageModel:
    """A model from a run directory, from an export, or by a shipped name ("demo").

    A Refusal names what is missing or wrong.
    """
    directory = located(path)
    experiment = read_experiment(directory)
    weights = _read_weights(directory / "model.safetensors")
    if "head.weight" not in weights or not weights["head.weight"].ndim:
        raise Refusal(f"{directory / 'model.safetensors'} has no tensor head.weight: not a model.")
    vocab = len(weights["head.weight"])
    tokenizer, length = None, text_length(experiment)
    if (directory / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(directory / "tokenizer.json")
        if tokenizer.vocab != vocab:
            raise Refusal(
                f"{directory / 'tokenizer.json'} has {tokenizer.vocab} tokens and the model "
                f"{vocab}: they do not belong together."
            )
    network = experiment.method.network(experiment.size, vocab, length)
    _fill(network, weights, directory / "model.safetensors")
    return LanguageModel(experiment, network.to(device), tokenizer, length)


def write_text(text: str, file: Path) -> None:
    """Write a small file whole or not at all."""
    try:
        with replacing(file) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refusal(
            f"{file} could not be written ({error.strerror or error}): free some space."
        ) from error


def write_weights(weights: dict[str, Tensor], file: Path) -> None:
    """Write model.safetensors whole or not at all; a Refusal if the disk is full."""
    try:
        with replacing(file) as partial:
            save_file({k: v.detach().contiguous() for k, v in weights.items()}, partial)
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{file} could not be written ({error}): free some space.") from error


def text_length(experiment: Experiment) -> int:
    """Tokens in a text."""
    match experiment.data:
        case Text(length=length):
            return length
        case Generated():
            from flowlm.data.language import demo_language

            return demo_language()[0].length


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise Refusal(
            f"{file} does not exist yet: it is written with the run's first checkpoint."
        ) from error
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise Refusal(f"{file} is damaged or not a safetensors file ({error}).") from error


def _fill(network: DiT, weights: dict[str, Tensor], file: Path) -> None:
    wanted = dict(network.named_parameters())
    missing, extra = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    for name in sorted(missing):
        raise Refusal(f"{file} lacks the tensor {name}, which this experiment's network has.")
    for name in sorted(extra):
        raise Refusal(f"{file} has a tensor {name}, which this experiment's network has not.")
    for name, parameter in wanted.items():
        if parameter.shape != weights[name].shape:
            raise Refusal(
                f"{file}: {name} has shape {tuple(weights[name].shape)} and the experiment says "
                f"{tuple(parameter.shape)}."
            )
    network.load_state_dict(weights)
