"""6 x 6 Sudoku grids: four models, which half of 28 million grids are drawn for.

One trunk of 1.6 M parameters; flow and map together cost as much as either baseline.
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
from flowlm.tasks.sudoku import Sudoku
from flowlm.train.plan import Plan

SIZE = Size(
    blocks=6, width=128, heads=4, condition=32, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned", reach=2,
)  # fmt: skip
PLAN = Plan(batch=256, lr=2e-3, warmup=100, decay=0.5, beta2=0.99, ema=0.995, keep=1)


def _experiment(name: str, method: Method, sampler: Sampler, steps: int) -> Experiment:
    return Experiment(name, method, sampler, Sudoku(), SIZE, replace(PLAN, steps=steps))


def flow() -> Experiment:
    """A flow (FLM) of Sudoku grids, 20000 steps.

    flowlm train sudoku-flow
    """
    return _experiment("sudoku-flow", Flow(input=BayesInput()), Euler(), steps=20000)


def flow_map() -> Experiment:
    """A flow map (FMLM) of Sudoku grids, distilled from that flow, 19000 steps.

    flowlm train sudoku-flow-map --method.teacher runs/sudoku-flow
    """
    method = FlowMap(input=BayesInput())
    return _experiment("sudoku-flow-map", method, Jumps(), steps=19000)


def masked() -> Experiment:
    """Masked diffusion of Sudoku grids, 50000 steps.

    flowlm train sudoku-masked
    """
    return _experiment("sudoku-masked", Masked(), Unmask(), steps=50000)


def autoregressive() -> Experiment:
    """An autoregressive model of Sudoku grids, 50000 steps.

    flowlm train sudoku-autoregressive
    """
    return _experiment("sudoku-autoregressive", Autoregressive(), LeftToRight(), steps=50000)
