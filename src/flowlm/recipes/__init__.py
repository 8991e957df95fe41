"""Recipes: functions that return an Experiment. The docstring holds the command and the cost."""

from __future__ import annotations

from collections.abc import Callable

from flowlm.experiment import Experiment
from flowlm.recipes import addition, demo, lm1b, openwebtext, queens, sudoku, text, text8

RECIPES: dict[str, Callable[[], Experiment]] = {
    "text-flow": text.flow,
    "text-flow-map": text.flow_map,
    "text-masked": text.masked,
    "text-uniform": text.uniform,
    "text-autoregressive": text.autoregressive,
    "demo-flow": demo.flow,
    "demo-flow-map": demo.flow_map,
    "demo-masked": demo.masked,
    "demo-autoregressive": demo.autoregressive,
    "queens-flow": queens.flow,
    "queens-flow-map": queens.flow_map,
    "queens-masked": queens.masked,
    "queens-autoregressive": queens.autoregressive,
    "sudoku-flow": sudoku.flow,
    "sudoku-flow-map": sudoku.flow_map,
    "sudoku-masked": sudoku.masked,
    "sudoku-autoregressive": sudoku.autoregressive,
    "addition-flow": addition.flow,
    "addition-flow-map": addition.flow_map,
    "addition-masked": addition.masked,
    "addition-autoregressive": addition.autoregressive,
    "lm1b-flow": lm1b.flow,
    "lm1b-flow-map": lm1b.flow_map,
    "lm1b-flow-bayes": lm1b.flow_bayes,
    "lm1b-flow-map-bayes": lm1b.flow_map_bayes,
    "lm1b-masked": lm1b.masked,
    "lm1b-uniform": lm1b.uniform,
    "lm1b-autoregressive": lm1b.autoregressive,
    "owt-flow": openwebtext.flow,
    "owt-flow-map": openwebtext.flow_map,
    "owt-flow-bayes": openwebtext.flow_bayes,
    "owt-flow-map-bayes": openwebtext.flow_map_bayes,
    "owt-masked": openwebtext.masked,
    "owt-uniform": openwebtext.uniform,
    "owt-autoregressive": openwebtext.autoregressive,
    "text8-flow": text8.flow,
    "text8-flow-map": text8.flow_map,
    "text8-flow-bayes": text8.flow_bayes,
    "text8-flow-map-bayes": text8.flow_map_bayes,
    "text8-masked": text8.masked,
    "text8-uniform": text8.uniform,
    "text8-autoregressive": text8.autoregressive,
}
