"""A small model with a tokenizer."""

from __future__ import annotations

from dataclasses import replace

import torch

from flowlm.data.tokenizer import Tokenizer
from flowlm.experiment import Experiment, Text
from flowlm.methods.flow import Flow
from flowlm.model.language_model import LanguageModel
from flowlm.nn.size import Size
from flowlm.sampling import Euler
from flowlm.train.plan import Plan


def model(seed: int = 0, **size: int) -> LanguageModel:
    """A model that has seen nothing, but has a tokenizer and no weight at zero."""
    tokenizer = Tokenizer.characters(["abcdefghij"])
    shape = replace(Size(blocks=1, width=16, heads=2, condition=8), **size)
    experiment = Experiment(
        "text-flow",
        Flow(),
        Euler(),
        Text("/home/somebody/secret/corpus.txt", length=9),
        shape,
        Plan(),
    )
    torch.manual_seed(seed)
    network = Flow().network(shape, tokenizer.vocab, 9)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return LanguageModel(experiment, network, tokenizer, 9)
