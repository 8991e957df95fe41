"""Tasks with a checker: queens, Sudoku and sums, four models each.

The models of a task share one trunk, of 0.4 M parameters (Sudoku: 1.4 M); its flow and its map
together cost as much as either baseline alone.
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
from flowlm.sampling.sampler import Sampler
from flowlm.tasks.addition import Addition
from flowlm.tasks.queens import Queens
from flowlm.tasks.sudoku import Sudoku
from flowlm.tasks.task import Task
from flowlm.train.plan import Plan

SIZE = Size(
    blocks=6, width=64, heads=4, condition=32, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned", reach=2,
)  # fmt: skip
PLAN = Plan(batch=256, lr=3e-3, warmup=100, decay=0.5, beta2=0.99, ema=0.995, keep=1)


def _experiment(name: str, task: Task, method: Method, sampler: Sampler, steps: int) -> Experiment:
    wide = isinstance(task, Sudoku)
    size = replace(SIZE, width=128) if wide else SIZE
    plan = replace(PLAN, steps=steps, lr=2e-3 if wide else PLAN.lr)
    return Experiment(name, method, sampler, task, size, plan)


def queens_flow() -> Experiment:
    """A flow (FLM) of the twelve queens, half of whose solutions are to learn from.

    flowlm train queens-flow
    20000 steps.
    """
    method = Flow(input=BayesInput())
    return _experiment("queens-flow", Queens(), method, Jumps(), 20_000)


def queens_flow_map() -> Experiment:
    """The flow map (FMLM) of queens-flow.

    flowlm train queens-flow-map --method.teacher runs/queens-flow
    19000 steps.
    """
    method = FlowMap(input=BayesInput())
    return _experiment("queens-flow-map", Queens(), method, Jumps(), 19_000)


def queens_masked() -> Experiment:
    """Masked diffusion, to compare with queens-flow.

    flowlm train queens-masked
    50000 steps.
    """
    return _experiment("queens-masked", Queens(), Masked(), Unmask(), 50_000)


def queens_autoregressive() -> Experiment:
    """An autoregressive model, to compare with queens-flow.

    flowlm train queens-autoregressive
    50000 steps.
    """
    method = Autoregressive()
    return _experiment("queens-autoregressive", Queens(), method, LeftToRight(), 50_000)


def sudoku_flow() -> Experiment:
    """A flow (FLM) of 6 x 6 Sudoku grids, half of which are to learn from.

    flowlm train sudoku-flow
    20000 steps.
    """
    method = Flow(input=BayesInput())
    return _experiment("sudoku-flow", Sudoku(), method, Jumps(), 20_000)


def sudoku_flow_map() -> Experiment:
    """The flow map (FMLM) of sudoku-flow.

    flowlm train sudoku-flow-map --method.teacher runs/sudoku-flow
    19000 steps.
    """
    method = FlowMap(input=BayesInput())
    return _experiment("sudoku-flow-map", Sudoku(), method, Jumps(), 19_000)


def sudoku_masked() -> Experiment:
    """Masked diffusion, to compare with sudoku-flow.

    flowlm train sudoku-masked
    50000 steps.
    """
    return _experiment("sudoku-masked", Sudoku(), Masked(), Unmask(), 50_000)


def sudoku_autoregressive() -> Experiment:
    """An autoregressive model, to compare with sudoku-flow.

    flowlm train sudoku-autoregressive
    50000 steps.
    """
    method = Autoregressive()
    return _experiment("sudoku-autoregressive", Sudoku(), method, LeftToRight(), 50_000)


def addition_flow() -> Experiment:
    """A flow (FLM) of sums of two numbers of three digits, nine tenths of which are to learn from.

    flowlm train addition-flow
    20000 steps.
    """
    method = Flow(input=BayesInput())
    return _experiment("addition-flow", Addition(), method, Jumps(), 20_000)


def addition_flow_map() -> Experiment:
    """The flow map (FMLM) of addition-flow.

    flowlm train addition-flow-map --method.teacher runs/addition-flow
    19000 steps.
    """
    method = FlowMap(input=BayesInput())
    return _experiment("addition-flow-map", Addition(), method, Jumps(), 19_000)


def addition_masked() -> Experiment:
    """Masked diffusion, to compare with addition-flow.

    flowlm train addition-masked
    50000 steps.
    """
    return _experiment("addition-masked", Addition(), Masked(), Unmask(), 50_000)


def addition_autoregressive() -> Experiment:
    """An autoregressive model, to compare with addition-flow.

    flowlm train addition-autoregressive
    50000 steps.
    """
    method = Autoregressive()
    return _experiment("addition-autoregressive", Addition(), method, LeftToRight(), 50_000)


def queens_map_chain() -> tuple[Experiment, ...]:
    """The flow queens-flow, then its flow map.

    flowlm train queens-map
    """
    return queens_flow(), queens_flow_map()


def sudoku_map_chain() -> tuple[Experiment, ...]:
    """The flow sudoku-flow, then its flow map.

    flowlm train sudoku-map
    """
    return sudoku_flow(), sudoku_flow_map()


def addition_map_chain() -> tuple[Experiment, ...]:
    """The flow addition-flow, then its flow map.

    flowlm train addition-map
    """
    return addition_flow(), addition_flow_map()
