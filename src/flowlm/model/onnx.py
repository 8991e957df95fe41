"""A model as an ONNX file: its network for onnxruntime, and metadata with which to write."""

from __future__ import annotations

import base64
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from flowlm.core.clock import INTERVALS
from flowlm.errors import Refusal
from flowlm.experiment import to_json
from flowlm.files import new_binary
from flowlm.model.export import require_flow, without_places
from flowlm.model.graph import Graph
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load

INPUTS = {
    "PosteriorInput": "posterior", "BayesInput": "bayes", "LinearInput": "linear",
    "ProjectedInput": "projected",
}  # fmt: skip

OPSET = 18
"""The exporter's own, from which it converts to others; onnxruntime reads it from 1.14 on."""
LARGEST = 2**31 - 2**24
"""Bytes of weights: a file is one message of protobuf, of less than 2 GiB with all that it says."""
PACKAGES = ("onnx", "onnxscript")


def export_onnx(name: str | Path, file: Path, tokenizer: str | None = None) -> None:
    """Write the graph of a model by its name; a Refusal if it is not one that has a graph.

    `file` is new, and appears when it is complete.
    """
    require_packages()
    with new_binary(file) as target:
        target.write(onnx_of(load(name, "cpu", tokenizer=tokenizer)))


def require_packages() -> None:
    """Refuse to go on without the packages that torch's exporter needs."""
    if any(find_spec(package) is None for package in PACKAGES):
        raise Refusal(
            f"A graph needs the packages {' and '.join(PACKAGES)}: pip install 'flowlm[onnx]'."
        )


@torch.no_grad()
def onnx_of(model: LanguageModel) -> bytes:
    """The content of the file: network, weights in float32, and `facts_of` as its metadata.

    Inputs are x (b, l, v), `now` and, of a flow map, `then` (b, l); the answer is `log_probs`
    (b, l, v). Of a model with projected input x is (b, l, d), and another answer is the `table`
    (v, d). Any b will do; docs/onnx.md writes with it.
    """
    require_packages()
    require_graph(model)
    graph = Graph(model.experiment, model.network, model.length).cpu()
    times = ["now", "then"][: model.experiment.method.times]
    # Two texts: an axis of one counts as one that is always so. And tensors of their own, because
    # an exporter takes one that is given twice for one input.
    x, batch = torch.zeros(2, *graph.shape), {0: torch.export.Dim("batch")}
    taus = [torch.zeros(2, model.length) for _ in times]
    with _quiet():
        program = torch.onnx.export(
            graph, (x, *taus), input_names=["x", *times],
            output_names=["log_probs", "table"][: 1 + graph.projected],
            dynamic_shapes=(batch, (batch,) * len(times)),
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code, with their paths, that each comes from
    program.model.metadata_props.clear()
    program.model.metadata_props.update(facts_of(model))
    return program.model_proto.SerializeToString()


def facts_of(model: LanguageModel) -> dict[str, str]:
    """The metadata: what a writer needs besides the network, and the experiment."""
    clock = model.experiment.method.time(model.network.vocab)
    assert clock is not None, "flows have a clock"
    taus = clock.tau(torch.linspace(0, 1, INTERVALS + 1)[None])[0]
    facts = {
        "experiment": to_json(without_places(model.experiment)),
        "clock": base64.b64encode(taus.numpy().astype("<f4").tobytes()).decode("ascii"),
    }
    if model.tokenizer is not None:
        facts["tokenizer"] = model.tokenizer.to_json()
    return facts


def require_graph(model: LanguageModel) -> None:
    """Refuse a model that has no such graph."""
    method = json.loads(to_json(model.experiment))["method"]
    require_flow(method, "ONNX files are of", INPUTS, f"one of {', '.join(INPUTS.values())}")
    size = 4 * sum(parameter.numel() for parameter in model.network.parameters())
    if size > LARGEST:
        raise Refusal(
            f"An ONNX file holds less than 2 GiB, and the weights of this model take "
            f"{size / 2**30:.1f}: serve it with flowlm serve."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own code from who exports a model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
