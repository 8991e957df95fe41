"""Experiments: what to learn and how to write, as one value; its parts by name; its JSON."""

from flowlm.experiment.experiment import AnyData, Experiment, Generated, Text
from flowlm.experiment.kinds import INPUTS, METHODS, RULES, SAMPLERS
from flowlm.experiment.places import inherit_from_teacher, require_places, rooted
from flowlm.experiment.stored import from_json, read_experiment, settings_of, to_json

__all__ = [
    "INPUTS", "METHODS", "RULES", "SAMPLERS", "AnyData", "Experiment", "Generated", "Text",
    "from_json", "inherit_from_teacher", "read_experiment", "require_places", "rooted",
    "settings_of", "to_json",
]  # fmt: skip
