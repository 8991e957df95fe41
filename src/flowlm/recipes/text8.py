"""text8: 256 characters of Wikipedia, a to z and the space.

`flowlm prepare text8` first. Nothing is published of flows on text8, so the schedule is that of the
other corpora, and a flow's cross-entropy is no likelihood to put beside bits per character. Hours
are no measurement: they are the useful operations that `flowlm train RECIPE --dry-run` counts, at
40 % of the published peak of an H100 or H200 (989 TFLOP/s), shared by eight.
"""

from __future__ import annotations

from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.uniform_state import UniformState
from flowlm.nn.size import Size
from flowlm.recipes.published import OURS, PLAN, SIZE
from flowlm.sampling.ancestral import Unmask
from flowlm.sampling.jump import Jumps
from flowlm.sampling.left_to_right import LeftToRight
from flowlm.sampling.ode import Euler
from flowlm.sampling.replace import Replace
from flowlm.sampling.sampler import Sampler

# 27 characters and two marks.
DATA = Text(path="data/text8", length=256, vocab=29)


def _experiment(name: str, method: Method, sampler: Sampler, size: Size = SIZE) -> Experiment:
    return Experiment(name, method, sampler, DATA, size, PLAN)


def flow() -> Experiment:
    """text8: the flow (FLM) with the settings published for other corpora.

    torchrun --nproc-per-node 8 -m flowlm train text8-flow
    8 H100 or H200: 6.19 hours (estimated).
    """
    return _experiment("text8-flow", Flow(), Euler())


def flow_map() -> Experiment:
    """text8: the flow map (FMLM) with those settings, distilled from text8-flow.

    torchrun --nproc-per-node 8 -m flowlm train text8-flow-map
    8 H100 or H200: 9.29 hours (estimated).
    """
    method = FlowMap(teacher="runs/text8-flow")
    return _experiment("text8-flow-map", method, Jumps(gamma=0.0))


def flow_bayes() -> Experiment:
    """text8: the flow with our bayes encoder.

    torchrun --nproc-per-node 8 -m flowlm train text8-flow-bayes
    8 H100 or H200: 6.4 hours (estimated).
    """
    return _experiment("text8-flow-bayes", Flow(input=BayesInput()), Jumps(), OURS)


def flow_map_bayes() -> Experiment:
    """text8: the flow map of text8-flow-bayes.

    torchrun --nproc-per-node 8 -m flowlm train text8-flow-map-bayes
    8 H100 or H200: 9.59 hours (estimated). Nothing is known of it at this size.
    """
    method = FlowMap(input=BayesInput(), teacher="runs/text8-flow-bayes")
    return _experiment("text8-flow-map-bayes", method, Jumps(), OURS)


def masked() -> Experiment:
    """text8: masked diffusion (MDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train text8-masked
    8 H100 or H200: 6.19 hours (estimated). Held-out loss over log 2: bits per
    character, an upper bound.
    """
    return _experiment("text8-masked", Masked(), Unmask())


def uniform() -> Experiment:
    """text8: uniform-state diffusion (UDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train text8-uniform
    8 H100 or H200: 6.19 hours (estimated).
    """
    return _experiment("text8-uniform", UniformState(), Replace())


def autoregressive() -> Experiment:
    """text8: an autoregressive model on the same trunk, to compare with and to judge by.

    torchrun --nproc-per-node 8 -m flowlm train text8-autoregressive
    8 H100 or H200: 6.19 hours (estimated).
    """
    return _experiment("text8-autoregressive", Autoregressive(), LeftToRight())


def map_chain() -> tuple[Experiment, ...]:
    """text8: text8-flow, then text8-flow-map.

    torchrun --nproc-per-node 8 -m flowlm train text8-map
    """
    return flow(), flow_map()


def map_bayes_chain() -> tuple[Experiment, ...]:
    """text8: text8-flow-bayes, then text8-flow-map-bayes.

    torchrun --nproc-per-node 8 -m flowlm train text8-map-bayes
    """
    return flow_bayes(), flow_map_bayes()
