"""Options of the commands. Torch-free: help must come at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flowlm.experiment import Experiment
from flowlm.sampling.sampler import Sampler


@dataclass(frozen=True)
class Demo:
    """Train a flow, a flow map and two baselines on an exactly solvable language, and compare."""

    out: Path = Path("runs/demo")
    """Where to write; what is already trained there is not trained again."""
    seed: int = 0
    """Names every random number of the demo."""


@dataclass(frozen=True)
class Prepare:
    """Tokenise text once, into memory-mapped files that many runs can share.

    Published corpora: lm1b, lm1b-cls, lm1b-unpacked, openwebtext, text8, wikitext103, fineweb-edu.
    What was interrupted goes on with the same command.
    """

    path: tyro.conf.Positional[str]
    """A published corpus; a UTF-8 text file, a directory of .txt files, or a glob; a parquet or
    JSON file, or a directory of them; or hf:owner/name[@revision] on the Hugging Face hub."""
    out: Path | None = None
    """The new directory; by default data/NAME for a published corpus."""
    tokenizer: str | None = None
    """characters, bpe, a file or folder, bert-base-uncased, gpt2, or hf:owner/name; for a published
    corpus, a copy of its own."""
    vocab: int = 4096
    """Size of a BPE vocabulary trained here."""
    documents: Literal["line", "blank"] = "line"
    """What separates documents: the end of a line, or a blank line."""
    valid: float = 0.05
    """Share of the documents held out for validation."""
    unknown: float = 0.01
    """Share of the text that the tokenizer may not know."""
    column: str = "text"
    """The column of a table that holds the text."""
    subset: str | None = None
    """Of a data set on the hub."""
    source: Path | None = None
    """A directory that holds the files of a published corpus."""
    whole: bool = False
    """Fetch everything from the hub before the first document is read."""
    jobs: int = 0
    """Processes that tokenise; 0 takes one a core."""


@dataclass(frozen=True)
class Train:
    """Train a recipe.

    Other kinds than the recipe's own: --sampler NAME, --method.input NAME, --method.rule NAME.
    """

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """The recipe, each part of which is an option."""
    out: Path | None = None
    """Run directory; by default runs/RECIPE."""
    dry_run: bool = False
    """Train nothing: print parameters, memory, operations, tokens and hours, in seconds."""
    accelerator: str = "h200"
    """Of --dry-run: here (this machine, measured), a100, l40s, h100, h200, b200, mi300x, rtx3090,
    rtx4090, rtx5090, or the TFLOP/s that one reaches."""
    devices: int = 1
    """Of --dry-run: accelerators, which share the batch and the state."""


@dataclass(frozen=True)
class TrainChain:
    """Options of a chain itself; all others are its stages'."""

    out: Path | None = None
    """Directory of the chain, with a run a stage; by default runs/CHAIN."""
    dry_run: bool = False
    """Train nothing: print what every stage takes, and their sum."""
    accelerator: str = "h200"
    """Of --dry-run, as in `flowlm train RECIPE`."""
    devices: int = 1
    """Of --dry-run, as in `flowlm train RECIPE`."""


@dataclass(frozen=True)
class Way:
    """The settings of a sampler."""

    sampler: Sampler


@dataclass(frozen=True)
class Sample:
    """Write texts with a trained model."""

    run: tyro.conf.Positional[str]
    """A run directory, an export, a shipped model (demo), a released .ckpt file or folder, or
    hf:owner/name[@revision] on the Hugging Face hub."""
    steps: tuple[int, ...] = (1,)
    """Numbers of steps to write with, one after the other; those of an autoregressive model are its
    tokens."""
    num: int = 8
    """How many texts."""
    seed: int = 0
    """The same seed writes the same texts."""
    sampler: str | None = None
    """euler, heun, jumps, bridge, refine, unmask, replace, left-to-right, jacobi, draft or
    residual-jumps; by default the model's own. Its settings are --sampler.temperature,
    --sampler.top-p, --sampler.gamma, --sampler.latest, --sampler.endpoint, --sampler.churn,
    --sampler.cools, --sampler.certainty and --sampler.tail."""
    settings: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The settings of the sampler, as words."""
    guide: str | None = None
    """A weaker run of the same kind, named as RUN: every answer is led away from its answer."""
    guidance: float | None = None
    """How far, with --guide: 1 changes nothing; by default 2. Each step evaluates both networks."""
    film: bool = False
    """Show a text while it comes into being."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1 and so on, mps, or auto for the fastest of them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's blocks and head; clock, state and softmax stay in float32."""
    tokenizer: str | None = None
    """In place of the model's own: a file or folder, bert-base-uncased, gpt2, or hf:owner/name."""


@dataclass(frozen=True)
class Evaluate:
    """Measure quality and diversity of a model; writes report.json and report.html.

    Stopped, it goes on with the same command. A report of other settings is not replaced: it is
    kept as report-1.json, report-2.json, ...
    """

    run: tyro.conf.Positional[str]
    """As in `flowlm sample`."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 32)
    """Numbers of steps; those of an autoregressive model are its tokens."""
    num: int = 1024
    """Texts for each."""
    seed: int = 0
    """Names the texts."""
    seeds: int = 1
    """Seeds from `seed` on: how much figures differ between them."""
    sampler: str | None = None
    """How to write, as in `flowlm sample`."""
    settings: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The settings of the sampler, as words."""
    frontier: Literal["temperature", "gamma", "top_p"] | None = None
    """A setting of the sampler to turn: quality against diversity at equal entropy."""
    judge: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Who scores samples: an autoregressive run with the same tokenizer; or a causal language model
    of transformers, in a folder or on the hub (gpt2-large, hf:owner/name). Give it once for each;
    the first fills the table. Not for texts whose law is known exactly."""
    out: Path | None = None
    """Where the report goes; by default into RUN if it was trained there, else into
    reports/NAME."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1 and so on, mps, or auto for the fastest of them."""
    tokenizer: str | None = None
    """In place of the model's own: a file or folder, bert-base-uncased, gpt2, or hf:owner/name."""


@dataclass(frozen=True)
class Compare:
    """Measure several models on the same noise, side by side: one table, one page, one JSON."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Models, as in `flowlm sample`; the others are compared with the first."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 32)
    """Numbers of steps; those of an autoregressive model are its tokens."""
    num: int = 1024
    """Texts for each."""
    seed: int = 0
    """Names the texts."""
    frontier: Literal["temperature", "gamma", "top_p"] | None = None
    """A setting of every sampler to turn: quality against diversity, all models in one chart."""
    judge: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """As in `flowlm evaluate`."""
    out: Path = Path("reports/compare")
    """Where the report goes."""
    device: str = "cpu"
    """As in `flowlm evaluate`."""


@dataclass(frozen=True)
class Runs:
    """List the runs in a directory."""

    directory: tyro.conf.Positional[Path] = Path("runs")
    """It is searched two levels deep."""


@dataclass(frozen=True)
class Convert:
    """Turn a released model into a flowlm export, or a flowlm model into the released format."""

    source: tyro.conf.Positional[str]
    """The model, as in `flowlm sample`."""
    target: tyro.conf.Positional[Path]
    """The new directory."""
    tokenizer: str | None = None
    """In place of the model's own: a file or folder, bert-base-uncased, gpt2, or hf:owner/name."""


@dataclass(frozen=True)
class Publish:
    """Publish a model on the Hugging Face hub, with a card written from its report."""

    run: tyro.conf.Positional[str]
    """The model, as in `flowlm sample`."""
    repository: tyro.conf.Positional[str]
    """USER/NAME; it is created if it does not exist."""
    report: Path | None = None
    """The report.json for the card; by default the one that `flowlm evaluate` wrote, if there is
    one."""
    private: bool = False
    """For your own eyes only."""
