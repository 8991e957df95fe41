"""A trained model, ready to write, to save and to share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.checks import file_name
from flowlm.core.types import Tokens
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.evaluate.likelihood import DRAWS
from flowlm.experiment import Experiment, Text
from flowlm.files import new_directory, write_text
from flowlm.hub.transfer import upload
from flowlm.machine.hardware import choose_device
from flowlm.model.amounts import amounts
from flowlm.model.batch_size import BUDGET, require_answer
from flowlm.model.controls import Controls
from flowlm.model.denoising import denoised
from flowlm.model.export import shared_card, without_places, write_model
from flowlm.model.fingerprints import Fingerprints
from flowlm.model.made import copied, described
from flowlm.model.parts import Parts
from flowlm.model.precision import narrowed, require_device_kind, require_dtype
from flowlm.model.prompts import Prompt, how_many
from flowlm.model.scores import Scores
from flowlm.model.weights import Weights, fingerprint
from flowlm.nn.compiled import compile_whole
from flowlm.nn.dit import DiT
from flowlm.sampling.sampler import Frame, Sampler
from flowlm.tasks.task import Task


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
        data = experiment.data
        if tokenizer is not None and isinstance(data, Text) and data.layout == "rows":
            tokenizer = tokenizer.of_rows()
        self.experiment, self.tokenizer, self.length = experiment, tokenizer, length
        self.fingerprints = fingerprints
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def from_network(
        cls, experiment: Experiment, network: DiT, tokenizer: Tokenizer | None = None,
        weights: Weights | None = None,
    ) -> LanguageModel:  # fmt: skip
        """The model of a network that you trained in a loop of your own; it is copied.

        `experiment` says which method, sampler, data and size it has. `weights` by name stand in
        for the network's own, such as the averaged ones, `state.average.whole()`. A task brings its
        own tokenizer.
        """
        if tokenizer is None and isinstance(experiment.data, Task):
            tokenizer = experiment.data.tokenizer()
        copy = copied(network, experiment, weights)
        return cls(experiment, copy, tokenizer, experiment.data.length)

    def __repr__(self) -> str:
        return f"LanguageModel({described(self.experiment, self.network, self.length)})"

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LanguageModel:
        """This model, moved to a device or into a type as in `load`; as in torch, in place."""
        if device is not None:
            self.network.to(choose_device(require_device_kind(device)))
        if dtype is not None:
            narrowed(self.network, require_dtype(dtype))
        return self

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
        self, n: int | None = None, steps: int = 1, seed: int = 0, prompt: Prompt | None = None,
        memory: int = BUDGET, sampler: Sampler | None = None, length: int | None = None,
    ) -> list[str]:  # fmt: skip
        """Write `n` texts in `steps` steps each; arguments as in `sample`.

        >>> model = flowlm.load("demo")
        >>> model.generate(1, steps=4, prompt="these old sailors")
        ['these old sailors ...']
        >>> model.generate(prompt=["this old", "these new"], steps=4)
        ['this old ...', 'these new ...']
        """
        self.parts.require_tokenizer("use sample() for its tokens")
        return self.decode(self.sample(n, steps, seed, prompt, memory, sampler, length))

    def infill(
        self, template: str | Sequence[str], n: int | None = None, steps: int = 1, seed: int = 0,
        memory: int = BUDGET, sampler: Sampler | None = None, length: int | None = None,
    ) -> list[str]:  # fmt: skip
        """Write texts around what is given: `n` for one template (by default 1), or one for each.

        `[..3]` in a template is a gap of 3 tokens, `[..]` one of the rest; several of these share
        the rest evenly. `[[..` stands for the characters `[..` (docs/prompts.md). A Refusal if it
        does not fill a text, or if the method writes from left to right and has text behind a gap.

        >>> flowlm.load("demo").infill("these [..] harbour and they [..]", steps=4)
        ['these ... harbour and they ...']
        """
        prompt = self.template(template, n, length)
        return self.generate(len(prompt), steps, seed, prompt, memory, sampler, length)

    def template(
        self, template: str | Sequence[str], n: int | None = None, length: int | None = None
    ) -> Tokens:
        """The tokens (n, l) of templates, -1 in their gaps: a prompt for `sample` and `film`.

        >>> flowlm.load("demo").template("these [..16] rope").shape
        torch.Size([1, 18])
        """
        return self.parts.template(template, n, length)

    def sample(
        self, n: int | None = None, steps: int = 1, seed: int = 0, prompt: Prompt | None = None,
        memory: int = BUDGET, sampler: Sampler | None = None, length: int | None = None,
    ) -> Tokens:  # fmt: skip
        """`n` texts as token ids (n, l).

        Text i depends on (seed, i) alone, not on n or on how texts are batched. `prompt` is text
        that all begin with; a list of such, one for each (then `n` may be left out); or given
        tokens (n, l), and -1 where the model is to write. As many texts are written at once
        as fit into `memory` bytes beside the weights; one always is. `sampler` is one of
        flowlm.sampling, such as Heun(); by default that of the experiment. `length` tokens other
        than the model's own: shorter texts are cut, longer ones written in windows of which the
        first half is the end of what stands already.

        >>> flowlm.load("demo").sample(2, steps=4, length=40).shape
        torch.Size([2, 40])
        """
        parts = self.parts
        given, steps, seed = parts.asked(n, steps, seed, prompt, length)
        require_answer(*given.shape)
        return torch.cat(list(parts.batches(given, steps, seed, memory, None, sampler)))

    def batches(
        self, n: int | None = None, steps: int = 1, seed: int = 0, prompt: Prompt | None = None,
        memory: int = BUDGET, most: int | None = None, sampler: Sampler | None = None,
        length: int | None = None,
    ) -> Iterator[Tokens]:  # fmt: skip
        """The texts of `sample` in batches (b, l), each as soon as it is written.

        `most` limits the texts of a batch further than `memory` does.
        """
        parts = self.parts
        given, steps, seed = parts.asked(n, steps, seed, prompt, length)
        return parts.batches(given, steps, seed, memory, most, sampler)

    def film(
        self, n: int | None, steps: int, seed: int = 0, first: int = 0,
        prompt: Prompt | None = None, sampler: Sampler | None = None,
    ) -> Iterator[Frame]:  # fmt: skip
        """Texts `first ... first + n` while they come into being; the last frame is the answer.

        Arguments as in `sample`, and checked at the call; all texts are written at once. Each frame
        has `tokens()` (n, l), FREE where nothing is decided, the time and the prediction.

        >>> *_, last = flowlm.load("demo").film(2, steps=4)
        >>> last.tokens().shape
        torch.Size([2, 18])
        """
        count, steps, seed, first = amounts(how_many(n, prompt), steps, seed, first)
        given = self.parts.given(prompt, count, self.length)
        return self.parts.writer(sampler, steps, seed).frames(given, first)

    def denoise(
        self, x: Float[Tensor, "b l v"], s: Tensor, t: Tensor | None = None, memory: int = BUDGET
    ) -> Float[Tensor, "b l v"]:
        """Probabilities of the clean tokens at a one-hot-space point x.

        s, t: clock times tau in [0, 1], (b,) or (b, l). With t >= s, a flow map's delta_{s,t} (of
        a residual map its positive part, normalised); a flow has only s, and for a flow map t
        defaults to s. Texts are worked through in batches that fit into `memory` bytes, beside x
        and the answer.

        >>> import torch
        >>> model = flowlm.load("demo")
        >>> noise = torch.randn(1, 18, 61)
        >>> model.denoise(noise, torch.zeros(1), torch.ones(1)).sum(-1).round().unique()
        tensor([1.])
        """
        size = self.parts.at_once(memory, self.experiment.sampler)
        return denoised(self.experiment.method, self.network, self.length, x, s, t, size)

    def encode(self, text: str) -> Tokens:
        """The ids of a text (1, k), without special tokens; a Refusal for what it does not know.

        >>> model = flowlm.load("demo")
        >>> model.decode(model.encode("these old sailors"))
        ['these old sailors']
        """
        return self.parts.encode(text)

    def decode(self, tokens: Tokens) -> list[str]:
        """The texts of token ids (n, l), such as those of `sample`."""
        return self.parts.decode(tokens)

    def score(
        self, texts: Sequence[str], draws: int = DRAWS, seed: int = 0, memory: int = BUDGET
    ) -> Scores:
        """Nats per token of each text: exact, or an upper bound with its standard error.

        A bound is read at `draws` times (at least 4); the error falls with their square root. A
        text longer than the model's length is read in windows; one that is shorter is refused
        unless the model reads from left to right. Texts that are rows of their own are read whole,
        and none is longer. Of a flow map it is the likelihood of its diagonal: one jump has none.

        >>> model = flowlm.load("demo")
        >>> model.score(model.generate(2, steps=4)).kind
        'upper bound'
        """
        return self.parts.score(texts, draws, seed, memory)

    def save(self, directory: str | Path) -> None:
        """Write a self-contained export: experiment.json, model.safetensors, tokenizer.json.

        And fingerprints.json, where it is known what the model has learnt from.

        A Refusal if the directory exists and is not empty; after a failure nothing is left.
        """
        with new_directory(Path(file_name("The directory", directory))) as built:
            self._write(built, self.experiment)

    def push(
        self, hub_id: str, report: Mapping[str, Any] | None = None, private: bool = False,
        license: str | None = None,
    ) -> str:  # fmt: skip
        """Publish an export with a model card as `owner/name` on the hub; returns its URL.

        `report` is the content of a report.json, for the card's figures, and `license` the hub's id
        of a licence, such as apache-2.0. Of local paths only their last part is published.
        """
        if not isinstance(hub_id, str) or not isinstance(private, bool):
            raise Refusal("push() takes USER/NAME as a str, and private as True or False.")
        experiment = without_places(self.experiment)
        page = shared_card(experiment, self.network, self.length, hub_id, report, license)
        with tempfile.TemporaryDirectory() as scratch:
            self._write(Path(scratch), experiment)
            write_text(page, Path(scratch) / "README.md")
            return upload(Path(scratch), hub_id, private)

    def _write(self, directory: Path, experiment: Experiment) -> None:
        write_model(directory, experiment, self.weights, self.tokenizer, self.fingerprints)

    @property
    def parts(self) -> Parts:
        """The model as requests to it need it."""
        return Parts(self.experiment, self.network, self.tokenizer, self.length)
