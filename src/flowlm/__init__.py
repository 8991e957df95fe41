"""flowlm: flow language models, trained, distilled into one-step maps, judged and used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from flowlm.errors import Refusal as Refusal
    from flowlm.experiment import Experiment as Experiment
    from flowlm.model.language_model import LanguageModel as LanguageModel


def load(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> LanguageModel:
    """A model by any of its names, as `model.loading.load` says; `dtype` is torch.float32 or so.

    A name that means nothing is refused before torch is imported.

    >>> flowlm.load("demo")
    LanguageModel(FMLM: 405,562 parameters, vocabulary of 61, texts of 18 tokens; ...)
    """
    from flowlm.model.finding import find_model

    place = find_model(name)
    import torch

    from flowlm.model import loading

    return loading.load(place, device, torch.float32 if dtype is None else dtype, tokenizer)


def recipe(name: str | Experiment, options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a recipe, with options changed by dotted names as on the command line.

    Parts of other kinds may be named by their words. With `method.teacher`, a student takes over
    the size and the text of that run. A Refusal says which option there is not, or what it may be.

    >>> experiment = flowlm.recipe("text-flow", {"train.steps": 200, "sampler": "heun"})
    >>> experiment.train.steps, experiment.sampler
    (200, Heun(temperature=1.0, cools='context'))
    """
    from flowlm.run import chosen

    return chosen.recipe(name, options)


def fit(
    recipe: str | Experiment,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> LanguageModel:
    """Train a recipe, or an experiment, into the run directory `out`, and load its model.

    `options` are those of `recipe`; `out` is runs/NAME by default. Where the same experiment was
    stopped it goes on, and where it has ended its model is loaded; a run of another one is refused.
    Ctrl-C saves, and raises `run.training.Interrupted`. `quiet` shows no progress.
    """
    from pathlib import Path

    from flowlm.run import chosen

    experiment = chosen.recipe(recipe, options)
    from flowlm.run import fit as training

    return training.fit(experiment, Path("runs") / experiment.name if out is None else out, quiet)


_NAMES = {
    "Experiment": "flowlm.experiment", "LanguageModel": "flowlm.model.language_model",
    "Refusal": "flowlm.errors",
}  # fmt: skip
"""Names that are imported when they are first used, and where from."""
_MODULES = ("recipes", "sampling")


def __getattr__(name: str) -> Any:
    # `import flowlm` stays free of torch, which takes a second: the command line needs that.
    if name in _NAMES:
        return vars(importlib.import_module(_NAMES[name]))[name]
    if name in _MODULES:
        return importlib.import_module(f"flowlm.{name}")
    raise AttributeError(f"module 'flowlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_NAMES, *_MODULES, "__version__", "fit", "load", "recipe"])
