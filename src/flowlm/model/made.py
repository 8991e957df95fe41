"""A network that somebody has trained, made a model's own; and a model in one line."""

from __future__ import annotations

import copy

import torch

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.model.weights import Weights
from flowlm.nn.dit import DiT
from flowlm.nn.hollow import hollow


def copied(network: DiT, experiment: Experiment, weights: Weights | None = None) -> DiT:
    """A copy of a network, with other `weights` if some are given.

    A Refusal if it, or they, are not of the experiment's method, size and length.
    """
    if not isinstance(network, DiT):
        raise Refusal(
            "The network must be the one that a method's network() has made, and it is of the "
            f"type {type(network).__name__}."
        )
    with hollow():
        wanted = experiment.method.network(experiment.size, network.vocab, experiment.data.length)
    shapes = {name: p.shape for name, p in wanted.named_parameters()}
    own = dict(network.named_parameters())
    for what, found in {"network": own, "weights": own if weights is None else weights}.items():
        if {name: tensor.shape for name, tensor in found.items()} != shapes:
            verb = "is" if what == "network" else "are"
            raise Refusal(
                f"The {what} {verb} not of the method, size and length that the experiment states: "
                "give the experiment that the network was made for."
            )
    made = copy.deepcopy(network)
    if weights is not None:
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.copy_(weights[name])
    return made


def described(experiment: Experiment, network: DiT, length: int) -> str:
    """Method, size, text, training and place of a model."""
    method, data = experiment.method, experiment.data
    text = data.path or "text" if isinstance(data, Text) else data.about
    count = sum(p.numel() for p in network.parameters())
    head = network.head.weight
    steps = f"{method.usual_steps:,}" if experiment.sampler.counts_steps else "any"
    return (
        f"{method.label}: {count:,} parameters, vocabulary of {network.vocab:,}, texts of "
        f"{length:,} tokens; {text}; {experiment.train.steps:,} steps of training, usually {steps} "
        f"of writing; {head.device}, {str(head.dtype).removeprefix('torch.')}"
    )
