"""Recipes: functions that return an Experiment. The docstring holds the command and the cost."""

from __future__ import annotations

from collections.abc import Callable

from flowlm.experiment import Experiment
from flowlm.recipes import demo, text

RECIPES: dict[str, Callable[[], Experiment]] = {
    "text-flow": text.flow,
    "text-flow-map": text.flow_map,
    "text-masked": text.masked,
    "text-autoregressive": text.autoregressive,
    "demo-flow": demo.flow,
    "demo-flow-map": demo.flow_map,
    "demo-masked": demo.masked,
    "demo-autoregressive": demo.autoregressive,
}
