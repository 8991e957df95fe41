"""Sums of two numbers of three digits: four models of 810,000 true strings.

One trunk of 0.4 M parameters; flow and map together cost as much as either baseline.
"""

from __future__ import annotations

from dataclasses import replace

from flowlm.experiment import Experiment
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.nn.size import Size
from flowlm.sampling.ancestral import Unmask
from flowlm.sampling.jump import Jumps
from flowlm.sampling.left_to_right import LeftToRight
from flowlm.sampling.ode import Euler
from flowlm.sampling.sampler import Sampler
from flowlm.tasks.addition import Addition
from flowlm.train.plan import Plan

SIZE = Size(
    blocks=6, width=64, heads=4, condition=32, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned", reach=2,
)  # fmt: skip
PLAN = Plan(batch=256, lr=3e-3, warmup=100, decay=0.5, beta2=0.99, ema=0.995, keep=1)


def _experiment(name: str, method: Method, sampler: Sampler, steps: int) -> Experiment:
    return Experiment(name, method, sampler, Addition(), SIZE, replace(PLAN, steps=steps))


def flow() -> Experiment:
    """A flow (FLM) of sums, 20000 steps.

    flowlm train addition-flow
    """
    return _experiment("addition-flow", Flow(input=BayesInput()), Euler(), steps=20000)


def flow_map() -> Experiment:
    """A flow map (FMLM) of sums, distilled from that flow, 19000 steps.

    flowlm train addition-flow-map --method.teacher runs/addition-flow
    """
    method = FlowMap(input=BayesInput())
    return _experiment("addition-flow-map", method, Jumps(), steps=19000)


def masked() -> Experiment:
    """Masked diffusion of sums, 50000 steps.

    flowlm train addition-masked
    """
    return _experiment("addition-masked", Masked(), Unmask(), steps=50000)


def autoregressive() -> Experiment:
    """An autoregressive model of sums, 50000 steps.

    flowlm train addition-autoregressive
    """
    return _experiment("addition-autoregressive", Autoregressive(), LeftToRight(), steps=50000)
