"""The start of a run: its teacher, the weights of another model, and networks made of them."""

from __future__ import annotations

import torch

from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.files import LOCK, holder
from flowlm.hub.names import located
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.model.weights import misfits
from flowlm.nn.compiled import compile_parts
from flowlm.nn.dit import DiT
from flowlm.run.inputs import Inputs

NAMED = 3
"""Tensors that do not fit which a sentence names, at most."""


def teacher_of(experiment: Experiment) -> LanguageModel | None:
    """The teacher, if there is one; a Refusal if the method cannot learn from it."""
    method = experiment.method
    if method.teacher is None:
        return None
    if writer := holder(located(method.teacher) / LOCK):
        raise Refusal(
            f"The teacher {method.teacher} is still being trained, by {writer}: wait for it to "
            "end, or stop it."
        )
    teacher = load(method.teacher, "cpu")
    theirs = teacher.experiment
    if not isinstance(theirs.method, method.teachers):
        fitting = " or ".join(kind.__name__ for kind in method.teachers)
        raise Refusal(
            f"The teacher {method.teacher} is a {type(theirs.method).__name__}, not a {fitting}: "
            f"give --method.teacher a run of a {fitting.lower()} recipe."
        )
    if teacher.tokenizer is None:
        raise Refusal(f"The teacher {method.teacher} has no tokenizer: `flowlm convert` adds one.")
    own_side = {"--size": experiment.size, "length": experiment.data.length}
    their_side = {"--size": theirs.size, "length": teacher.length} | theirs.method.shared()
    for what, own in (own_side | method.shared()).items():
        its = their_side[what]
        if own != its:
            raise Refusal(
                f"The teacher {method.teacher} has another {what} ({its}) than this experiment "
                f"({own}): leave the option out to take the teacher's."
            )
    return teacher


def origin_of(experiment: Experiment) -> LanguageModel | None:
    """The model whose weights a new run starts from, if it names one."""
    name = experiment.init
    if name is None:
        return None
    if writer := holder(located(name) / LOCK):
        raise Refusal(
            f"{name}, to start from, is still being trained, by {writer}: wait for it to end, or "
            "stop it."
        )
    origin = load(name, "cpu")
    if origin.tokenizer is None:
        raise Refusal(f"{name}, to start from, has no tokenizer: `flowlm convert` adds one.")
    own, its = experiment.size.heads, origin.experiment.size.heads
    if own != its:  # which no tensor's shape tells
        raise Refusal(
            f"{name}, to start from, has {its} heads and this experiment {own}: leave --size.heads "
            "out."
        )
    return origin


def networks(
    experiment: Experiment,
    inputs: Inputs,
    teacher: LanguageModel | None,
    origin: LanguageModel | None,
    device: torch.device,
) -> tuple[DiT, DiT | None]:
    """The network at its start, the same in every process, and the teacher's.

    Of an origin it has all weights, what it knows of the frequencies of tokens included. A Refusal
    names those that do not fit.
    """
    plan = experiment.train
    guide = None if teacher is None else teacher.network
    torch.manual_seed(plan.seed)
    network = experiment.method.network(
        experiment.size, inputs.tokenizer.vocab, inputs.length, guide
    ).to(device)
    if origin is None:
        experiment.method.prepare(network, inputs.counts)
    else:
        _require_fit(network, origin, f"{experiment.init}")
        network.load_state_dict(dict(origin.weights))
    guide = None if guide is None else guide.to(device)
    network.recompute = plan.recompute
    for part in (network, guide):
        if plan.compile and part is not None:
            compile_parts(part)
    return network, guide


def _require_fit(network: DiT, origin: LanguageModel, name: str) -> None:
    shapes = {key: tuple(weight.shape) for key, weight in network.named_parameters()}
    if faults := misfits(origin.weights, shapes):
        more = f" and {len(faults) - NAMED} more" * (len(faults) > NAMED)
        raise Refusal(
            f"The weights of {name}, to start from, are not those of this network: "
            f"{', '.join(faults[:NAMED])}{more}; choose the recipe and the size that they were "
            "trained with."
        )
