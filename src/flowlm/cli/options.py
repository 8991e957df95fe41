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
class Steps:
    """Part of a plan that may change when a run is resumed."""

    steps: int | None = None
    """Optimizer steps in all, more than the run has taken; by default as many as it was started
    for."""


@dataclass(frozen=True)
class Resume:
    """Continue a run or a chain that was stopped, exactly as it was started; or a run for longer.

    With a constant learning rate a longer run equals, bit for bit on the CPU, one that was started
    with as many steps. With --train.decay the rate follows the longer plan from where the run is.
    """

    run: tyro.conf.Positional[str]
    """The directory of a run or of a chain."""
    train: Steps = Steps()


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
    """Write texts with a trained model.

    Texts go to standard output, everything else to standard error. On a terminal the number of a
    text stands above it. Elsewhere, and in --out, every text is one line, in which \\n stands for a
    line break, \\r for a carriage return and \\\\ for a backslash; --json needs none of these.
    """

    run: tyro.conf.Positional[str]
    """A run directory, an export, a shipped model (demo), a released .ckpt file or folder, or
    hf:owner/name[@revision] on the Hugging Face hub."""
    steps: tuple[int, ...] = (1,)
    """Numbers of steps to write with, one after the other; those of an autoregressive model are its
    tokens."""
    num: int = 8
    """How many texts."""
    batch: int | None = None
    """How many of them at once, at most; by default as many as fit into memory. Texts are shown as
    soon as their batch is written, and do not depend on it."""
    seed: int = 0
    """The same seed writes the same texts, on one kind of device."""
    json: bool = False
    """A line of JSON for every text: text, tokens, seed, number (the text is that of the seed and
    its number, from 0 on), steps (null where the sampler has no choice), evaluations, sampler."""
    out: Path | None = None
    """A new file for the texts, instead of standard output; it appears when all are written."""
    quiet: bool = False
    """Nothing on standard error but errors, and the progress of a download."""
    temperature: float | None = None
    """Short for --sampler.temperature, whatever the sampler."""
    top_p: float | None = None
    """Short for --sampler.top-p, whatever the sampler."""
    sampler: str | None = None
    """euler, heun, jumps, bridge, refine, unmask, replace, left-to-right, jacobi, draft or
    residual-jumps; by default the model's own. Its settings are --sampler.temperature,
    --sampler.top-p, --sampler.gamma, --sampler.latest, --sampler.endpoint, --sampler.churn,
    --sampler.cools, --sampler.certainty and --sampler.tail."""
    settings: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The settings of the sampler, as words."""
    prompt: str | None = None
    """Text that all texts begin with."""
    prompts: Path | None = None
    """A text file with a prompt a line: `num` texts for each."""
    infill: str | None = None
    """A template: text with gaps, [..3] for 3 tokens and [..] for a share of the rest."""
    length: int | None = None
    """Tokens of a text; longer ones than the network reads are written in windows."""
    guide: str | None = None
    """A weaker run of the same kind, named as RUN: every answer is led away from its answer."""
    guidance: float | None = None
    """How far, with --guide: 1 changes nothing; by default 2. Each step evaluates both networks."""
    film: bool = False
    """Show texts while they come into being, on a terminal with colours for how likely every token
    is to the model, given ones underlined; elsewhere a line for every step."""
    fps: float = 4.0
    """Of --film on a terminal: frames a second, at most."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1 and so on, mps, or auto, which takes cuda where it is."""
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
    device: str = "auto"
    """Where to compute, as in `flowlm sample`."""
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
    device: str = "auto"
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
class Export:
    """Write a model into one file: a page for any browser, or a graph for onnxruntime.

    --page: an HTML file that writes without a server. It runs flows and flow maps with the input
    posterior or bayes, of at most 16 million parameters; it stores weights as float16 and sends
    nothing anywhere. --onnx: the network of a flow or a flow map, with weights in float32 and all
    that a writer needs (docs/onnx.md).
    """

    run: tyro.conf.Positional[str]
    """The model, as in `flowlm sample`."""
    page: Path | None = None
    """The new file, such as demo.html."""
    onnx: Path | None = None
    """The new file, such as demo.onnx; this needs pip install 'flowlm[onnx]'."""
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
    license: str | None = None
    """The hub's id of the licence of the weights, for the card: apache-2.0, mit, cc-by-4.0, other,
    and so on."""
