"""Recipes: functions that return an Experiment. The docstring holds the command and the cost.

A chain is a function that returns several: each is taught by the one before it.
"""

from __future__ import annotations

from collections.abc import Callable

from flowlm.experiment import Experiment
from flowlm.recipes import demo, lm1b, openwebtext, tasks, text, text8

RECIPES: dict[str, Callable[[], Experiment]] = {
    "text-flow": text.flow,
    "text-flow-map": text.flow_map,
    "text-residual": text.residual,
    "text-residual-map": text.residual_map,
    "text-masked": text.masked,
    "text-uniform": text.uniform,
    "text-dcd": text.dcd,
    "text-autoregressive": text.autoregressive,
    "text-gumbel": text.gumbel,
    "demo-flow": demo.flow,
    "demo-flow-map": demo.flow_map,
    "demo-residual": demo.residual,
    "demo-residual-map": demo.residual_map,
    "demo-masked": demo.masked,
    "demo-uniform": demo.uniform,
    "demo-duo-curriculum": demo.duo_curriculum,
    "demo-duo": demo.duo,
    "demo-dcd": demo.dcd,
    "demo-autoregressive": demo.autoregressive,
    "demo-gumbel": demo.gumbel,
    "queens-flow": tasks.queens_flow,
    "queens-flow-map": tasks.queens_flow_map,
    "queens-masked": tasks.queens_masked,
    "queens-autoregressive": tasks.queens_autoregressive,
    "sudoku-flow": tasks.sudoku_flow,
    "sudoku-flow-map": tasks.sudoku_flow_map,
    "sudoku-masked": tasks.sudoku_masked,
    "sudoku-autoregressive": tasks.sudoku_autoregressive,
    "addition-flow": tasks.addition_flow,
    "addition-flow-map": tasks.addition_flow_map,
    "addition-masked": tasks.addition_masked,
    "addition-autoregressive": tasks.addition_autoregressive,
    "lm1b-flow": lm1b.flow,
    "lm1b-flow-map": lm1b.flow_map,
    "lm1b-residual": lm1b.residual,
    "lm1b-residual-map": lm1b.residual_map,
    "lm1b-flow-bayes": lm1b.flow_bayes,
    "lm1b-flow-map-bayes": lm1b.flow_map_bayes,
    "lm1b-masked": lm1b.masked,
    "lm1b-uniform": lm1b.uniform,
    "lm1b-duo-curriculum": lm1b.duo_curriculum,
    "lm1b-duo": lm1b.duo,
    "lm1b-dcd": lm1b.dcd,
    "lm1b-autoregressive": lm1b.autoregressive,
    "lm1b-gumbel": lm1b.gumbel,
    "owt-flow": openwebtext.flow,
    "owt-flow-map": openwebtext.flow_map,
    "owt-residual": openwebtext.residual,
    "owt-residual-map": openwebtext.residual_map,
    "owt-flow-bayes": openwebtext.flow_bayes,
    "owt-flow-map-bayes": openwebtext.flow_map_bayes,
    "owt-masked": openwebtext.masked,
    "owt-uniform": openwebtext.uniform,
    "owt-duo-curriculum": openwebtext.duo_curriculum,
    "owt-duo": openwebtext.duo,
    "owt-dcd": openwebtext.dcd,
    "owt-autoregressive": openwebtext.autoregressive,
    "owt-gumbel": openwebtext.gumbel,
    "text8-flow": text8.flow,
    "text8-flow-map": text8.flow_map,
    "text8-flow-bayes": text8.flow_bayes,
    "text8-flow-map-bayes": text8.flow_map_bayes,
    "text8-masked": text8.masked,
    "text8-uniform": text8.uniform,
    "text8-autoregressive": text8.autoregressive,
}

CHAINS: dict[str, Callable[[], tuple[Experiment, ...]]] = {
    "text-map": text.map_chain,
    "demo-map": demo.map_chain,
    "queens-map": tasks.queens_map_chain,
    "sudoku-map": tasks.sudoku_map_chain,
    "addition-map": tasks.addition_map_chain,
    "lm1b-map": lm1b.map_chain,
    "lm1b-map-bayes": lm1b.map_bayes_chain,
    "owt-map": openwebtext.map_chain,
    "owt-map-bayes": openwebtext.map_bayes_chain,
    "text8-map": text8.map_chain,
    "text8-map-bayes": text8.map_bayes_chain,
}
"""Chains of recipes, by names of their own: `flowlm train text-map` trains all of one."""
