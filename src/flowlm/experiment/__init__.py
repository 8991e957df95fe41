"""Experiments: what to learn and how to write, as one value; its parts by name; its JSON."""

from flowlm.experiment.experiment import AnyData, Experiment, Text
from flowlm.experiment.kinds import DATA, INPUTS, METHODS, RULES, SAMPLERS
from flowlm.experiment.places import (
    inherit_from_start,
    inherit_from_teacher,
    require_places,
    rooted,
)
from flowlm.experiment.stored import from_json, read_experiment, settings_of, to_json

__all__ = [
    "DATA", "INPUTS", "METHODS", "RULES", "SAMPLERS", "AnyData", "Experiment", "Text", "from_json",
    "inherit_from_start", "inherit_from_teacher", "read_experiment", "require_places", "rooted",
    "settings_of", "to_json",
]  # fmt: skip
