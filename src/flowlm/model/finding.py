"""Finding a model before anything is imported that takes seconds. Torch-free."""

from __future__ import annotations

from pathlib import Path

from flowlm.checks import file_name
from flowlm.experiment import Experiment, read_experiment
from flowlm.hub.transfer import locate
from flowlm.model import released
from flowlm.model.released import is_released


def find_model(name: str | Path) -> Path:
    """Where the model is that `name` means (see `flowlm.load`); a Refusal if there is none.

    What is on the hub is fetched into its cache.
    """
    place = locate(file_name("The name of a model", name))
    if not is_released(place):
        read_experiment(place)
    return place


def experiment_of(place: Path) -> Experiment:
    """The experiment of a model that was found; of a released one, torch reads it."""
    return (
        released.read_released(place).experiment if is_released(place) else read_experiment(place)
    )
