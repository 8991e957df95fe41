"""Names of what an experiment needs: its teacher, its text, its tokenizer, where it starts."""

from __future__ import annotations

import glob
import os
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from flowlm.errors import Refusal
from flowlm.experiment.experiment import Experiment, Text
from flowlm.hub.names import PREFIX, SHIPPED, TOKENIZERS, aside, hub_id, located


def inherit_from_teacher(experiment: Experiment, name: str, teacher: Experiment) -> Experiment:
    """A student's experiment with its teacher `name`, and the size, data and more of that one.

    One that the method cannot learn from changes nothing: training refuses it.
    """
    method = experiment.method
    if not isinstance(teacher.method, method.teachers):
        return experiment
    alike = method.with_teacher(name).taught_by(teacher.method, teacher.sampler)
    data = teacher.data
    if isinstance(data, Text):
        # The tokenizer is the teacher's own, whatever text it will read, packed in whatever way.
        data = replace(data, tokenizer=None, begin=None, end=None)
    return replace(experiment, method=alike, data=data, size=teacher.size)


def inherit_from_start(experiment: Experiment, theirs: Experiment) -> Experiment:
    """An experiment that starts from the weights of another one, with the size of that one.

    And with its method's settings, where both have one method and that one had no teacher.
    """
    method, known = experiment.method, theirs.method
    if type(known) is type(method) and known.teacher is None and method.teacher is None:
        method = known
    return replace(experiment, method=method, size=theirs.size)


def rooted(experiment: Experiment) -> Experiment:
    """The same experiment with places that mean the same from every directory.

    Paths become absolute and hub ids begin with `hf:`, so that nothing that was a path when it was
    chosen is ever looked for on the hub. Short names (characters, gpt2, demo) stay.
    """
    method, data = experiment.method, experiment.data
    if method.teacher is not None:
        method = method.with_teacher(_rooted(method.teacher, SHIPPED))
    if isinstance(data, Text):
        learnt = data.tokenizer in ("characters", "bpe")
        tokenizer = data.tokenizer if learnt else _rooted(data.tokenizer, TOKENIZERS)
        path = data.path
        if path is not None and not path.startswith(PREFIX):
            path = _absolute(path)
        data = replace(data, path=path, tokenizer=tokenizer)
    return replace(experiment, method=method, data=data, init=_rooted(experiment.init, SHIPPED))


def require_places(experiment: Experiment, run: Path) -> None:
    """Refuse to go on with a run whose teacher, or whose text where it is needed, is gone.

    What a run has stored is a path unless it begins with `hf:`. A run that has prepared its text
    into itself needs no other.
    """
    method, data = experiment.method, experiment.data
    own = (run / "tokens" / "manifest.json").exists()
    needed: dict[str, str | None] = {
        "teacher": method.teacher,
        "text": data.path if isinstance(data, Text) and not own else None,
    }
    for what, place in needed.items():
        if place is None or place.startswith(PREFIX) or os.path.exists(located(place)):
            continue
        if what == "teacher" or not any(glob.iglob(place, recursive=True)):
            raise Refusal(
                f"The {what} of {run}, {place}, is not there any more: put it back, or write its "
                f"new place{aside(place)} into {run / 'experiment.json'}."
            )


def _rooted(name: str | None, short: Container[str]) -> str | None:
    if name is None or (name in short and not os.path.exists(name)):
        return name
    there = hub_id(name)
    return _absolute(name) if there is None else str(there)


def _absolute(path: str) -> str:
    place = os.path.expanduser(path)
    if glob.has_magic(place) and not os.path.isabs(place) and not os.path.exists(place):
        # A pattern, in a directory whose own name may have a bracket.
        return os.path.join(glob.escape(os.getcwd()), place)
    return os.path.abspath(place) if place else place
