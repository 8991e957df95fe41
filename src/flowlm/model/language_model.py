"""A trained model, ready to write, to save and to share."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.checks import file_name, whole
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Tokens
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.evaluate.likelihood import DRAWS
from flowlm.experiment import Experiment, Text, to_json
from flowlm.files import new_directory, write_text
from flowlm.hub.names import PREFIX
from flowlm.hub.transfer import upload
from flowlm.model.amounts import BYTES, amounts
from flowlm.model.arguments import clock_time, given_tokens, noisy_point
from flowlm.model.batch_size import BUDGET, max_batch_size, require_answer
from flowlm.model.card import model_card
from flowlm.model.controls import Controls
from flowlm.model.fingerprints import Fingerprints
from flowlm.model.scores import Scores, score
from flowlm.model.weights import Weights, fingerprint, write_weights
from flowlm.nn.compiled import compile_whole
from flowlm.nn.dit import DiT
from flowlm.sampling.sampler import Frame, Sampler


class LanguageModel(Controls):
    """A trained model. Everything that it writes is deterministic in the seed.

    `experiment` says what it is, `network` holds the averaged weights, `tokenizer` may be None:
    then it samples tokens and only `generate` is refused. `length` is the tokens of a text, and
    `fingerprints` tell what it has learnt from, where that is known.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: DiT,
        tokenizer: Tokenizer | None,
        length: int,
        fingerprints: Fingerprints | None = None,
    ) -> None:
        if tokenizer is not None and tokenizer.vocab != network.vocab:
            raise Refusal(
                f"The tokenizer has {tokenizer.vocab} tokens and the network {network.vocab}: they "
                "do not belong together."
            )
        self.experiment, self.tokenizer, self.length = experiment, tokenizer, length
        self.fingerprints = fingerprints
        self.network = network.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.head.weight.device

    @property
    def weights(self) -> Weights:
        """The parameters by name."""
        return dict(self.network.named_parameters())

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that tell its weights from others: no card shows figures of others."""
        return fingerprint(self.weights)[:16]

    def compile(self) -> None:
        """Compile for writing many small batches of one size at low latency.

        The first batch of every size takes seconds to compile; on CUDA the network then is one
        graph. A Refusal where a CPU's code has no compiler.
        """
        compile_whole(self.network)

    def generate(
        self, n: int, steps: int = 1, seed: int = 0, prompt: Tokens | None = None,
        memory: int = BUDGET, sampler: Sampler | None = None,
    ) -> list[str]:  # fmt: skip
        """Write `n` texts in `steps` steps each; arguments as in `sample`."""
        if self.tokenizer is None:
            raise Refusal(
                "This model has no tokenizer: use sample() for its tokens, or load it with "
                "tokenizer=, a tokenizer.json or a hub id."
            )
        tokens = self.sample(n, steps, seed, prompt, memory, sampler)
        return [self.tokenizer.decode(row) for row in tokens.tolist()]

    def sample(
        self, n: int, steps: int = 1, seed: int = 0, prompt: Tokens | None = None,
        memory: int = BUDGET, sampler: Sampler | None = None,
    ) -> Tokens:  # fmt: skip
        """`n` texts as token ids (n, l).

        Text i depends on (seed, i) alone, not on n or on how texts are batched. `prompt` (n, l)
        holds given tokens, and -1 where the model is to write. As many texts are written at once
        as fit into `memory` bytes beside the weights; one always is. `sampler` is one of
        flowlm.sampling, such as Heun(); by default that of the experiment.
        """
        n, steps, seed, _ = amounts(n, steps, seed)
        require_answer(n, self.length)
        return torch.cat(list(self.batches(n, steps, seed, prompt, memory, sampler=sampler)))

    def batches(
        self, n: int, steps: int = 1, seed: int = 0, prompt: Tokens | None = None,
        memory: int = BUDGET, most: int | None = None, sampler: Sampler | None = None,
    ) -> Iterator[Tokens]:  # fmt: skip
        """The texts of `sample` in batches (b, l), each as soon as it is written.

        `most` limits the texts of a batch further than `memory` does.
        """
        n, steps, seed, _ = amounts(n, steps, seed)
        given = None if prompt is None else self._given(prompt, n)
        way = self._sampler(sampler)
        size = self._max_batch_size(memory, way)
        if most is not None:
            size = min(size, max(1, most))

        def written(first: int) -> Tokens:
            count = min(size, n - first)
            part = None if given is None else given[first : first + count]
            frames = self._frames(way, count, steps, seed, first, part)
            # Frames are let go as they come: each holds a whole state.
            (last,) = deque(frames, maxlen=1)
            return last.tokens()

        return map(written, range(0, n, size))

    def film(
        self, n: int, steps: int, seed: int = 0, first: int = 0, prompt: Tokens | None = None,
        sampler: Sampler | None = None,
    ) -> Iterator[Frame]:  # fmt: skip
        """Texts `first ... first + n` while they come into being; the last frame is the answer.

        Arguments as in `sample`, and checked at the call; all texts are written at once. Each frame
        has `tokens()` (n, l), FREE where nothing is decided, the time and the prediction.
        """
        n, steps, seed, first = amounts(n, steps, seed, first)
        given = None if prompt is None else self._given(prompt, n)
        return self._frames(self._sampler(sampler), n, steps, seed, first, given)

    @torch.no_grad()
    def _frames(
        self, sampler: Sampler, n: int, steps: int, seed: int, first: int, prompt: Tokens | None
    ) -> Iterator[Frame]:
        if prompt is None:
            prompt = torch.full((n, self.length), FREE)
        rng = Streams.of(seed, count=n, first=first, device=self.device)
        denoiser = self.experiment.method.denoiser(self.network)
        yield from sampler.frames(denoiser, prompt.to(self.device), steps, rng)

    @torch.no_grad()
    def denoise(
        self, x: Float[Tensor, "b l v"], s: Tensor, t: Tensor | None = None, memory: int = BUDGET
    ) -> Float[Tensor, "b l v"]:
        """Probabilities of the clean tokens at a one-hot-space point x.

        s, t: clock times tau in [0, 1], (b,) or (b, l). With t >= s, a flow map's delta_{s,t} (of
        a residual map its positive part, normalised); a flow has only s, and for a flow map t
        defaults to s. Texts are worked through in batches
        that fit into `memory` bytes, beside x and the answer.
        """
        method = self.experiment.method
        space, two = method.space(self.network), method.times == 2
        if space is None:
            raise Refusal("This model reads tokens, not noisy points: denoise() needs a flow.")
        if t is not None and not two:
            raise Refusal("This model is a flow: it reads one time, so leave t out.")
        x = noisy_point(x, self.length, self.network.vocab)
        taus = [clock_time("s", s, x)]
        if two:
            taus.append(taus[0] if t is None else clock_time("t", t, x))
            if bool((taus[1] < taus[0]).any()):
                raise Refusal("A flow map leads from s on to t, and here t is before s: swap them.")
        taus = [tau.to(self.device) for tau in taus]
        answers, denoiser = [], method.denoiser(self.network)
        size = self._max_batch_size(memory, self.experiment.sampler)
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            point = space.from_one_hot(x[part].to(self.device, self.network.encoder.table.dtype))
            prediction = denoiser.two_time(point, taus[0][part], taus[-1][part])
            answers.append(prediction.log_probs().exp())
        return torch.cat(answers)

    def score(
        self, texts: Sequence[str], draws: int = DRAWS, seed: int = 0, memory: int = BUDGET
    ) -> Scores:
        """Nats per token of each text: exact, or an upper bound with its standard error.

        A bound is read at `draws` times (at least 4); the error falls with their square root. A
        text longer than the model's length is read in windows; one that is shorter is refused
        unless the model reads from left to right. Of a flow map it is the likelihood of its
        diagonal: one jump has none.
        """
        if self.tokenizer is None:
            raise Refusal(
                "This model has no tokenizer: load it with tokenizer=, a tokenizer.json or a hub "
                "id, to score texts."
            )
        draws = whole("The number of draws", draws, 4, 10**6)
        _, _, seed, _ = amounts(1, 1, seed)
        size = self._max_batch_size(memory, self.experiment.sampler)
        return score(
            self.experiment.method, self.network, self.tokenizer, self.length, texts, draws, seed,
            size,
        )  # fmt: skip

    def save(self, directory: str | Path) -> None:
        """Write a self-contained export: experiment.json, model.safetensors, tokenizer.json.

        And fingerprints.json, where it is known what the model has learnt from.

        A Refusal if the directory exists and is not empty; after a failure nothing is left.
        """
        with new_directory(Path(file_name("The directory", directory))) as built:
            self._write(built, self.experiment)

    def push(
        self, hub_id: str, report: Mapping[str, Any] | None = None, private: bool = False
    ) -> str:
        """Publish an export with a model card as `owner/name` on the hub; returns its URL.

        `report` is the content of a report.json, for the card's figures. Of local paths only
        their last part is published.
        """
        if not isinstance(hub_id, str) or not isinstance(private, bool):
            raise Refusal("push() takes USER/NAME as a str, and private as True or False.")
        experiment = _without_places(self.experiment)
        try:
            shared = model_card(
                experiment, sum(w.numel() for w in self.weights.values()), self.network.vocab,
                self.length, PREFIX + hub_id.removeprefix(PREFIX), report,
            )  # fmt: skip
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Refusal(
                "The report is not the content of a report.json: `flowlm evaluate` writes one."
            ) from error
        with tempfile.TemporaryDirectory() as scratch:
            self._write(Path(scratch), experiment)
            write_text(shared, Path(scratch) / "README.md")
            return upload(Path(scratch), hub_id, private)

    def _write(self, directory: Path, experiment: Experiment) -> None:
        write_weights(self.weights, directory / "model.safetensors")
        if self.tokenizer is not None:
            self.tokenizer.save(directory / "tokenizer.json")
        if self.fingerprints is not None:
            self.fingerprints.write(directory)
        write_text(to_json(experiment), directory / "experiment.json")

    def _given(self, prompt: Tokens, n: int) -> Tokens:
        return given_tokens(prompt, n, self.length, self.network.vocab)

    def _sampler(self, chosen: Sampler | None) -> Sampler:
        sampler = self.experiment.sampler if chosen is None else chosen
        if not isinstance(sampler, Sampler):
            raise Refusal(
                "A sampler must be one of flowlm.sampling, such as Euler(), and it is of the type "
                f"{type(sampler).__name__}."
            )
        self.experiment.method.require_sampler(sampler)
        return sampler

    def _max_batch_size(self, memory: int, sampler: Sampler) -> int:
        memory = whole("The memory in bytes", memory, 0, BYTES)
        return max_batch_size(sampler, self.network, self.length, memory)


def _without_places(experiment: Experiment) -> Experiment:
    """The experiment without the folders of the machine that it ran on; hub ids stay."""
    method, data = experiment.method, experiment.data
    if method.teacher is not None:
        method = method.with_teacher(_placeless(method.teacher))
    if isinstance(data, Text):
        data = replace(data, path=_placeless(data.path), tokenizer=_placeless(data.tokenizer))
    return replace(experiment, method=method, data=data)


def _placeless(name: str | None) -> str | None:
    return name if name is None or name.startswith(PREFIX) else Path(name).name
