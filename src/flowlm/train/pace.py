"""How long the rest of a run will take, from how long its last steps took."""

from __future__ import annotations

from collections import deque
from statistics import median

RECENT = 16
"""Stretches of steps from which the usual speed is taken."""

FEWEST = 3
"""Stretches before anything is said."""


class Pace:
    """Steps and the seconds they took, told at moments of one's own choice.

    Until the first of these a process starts up, compiles and settles: that says nothing of the
    rest. Later stretches that took more than twice the usual time had a validation or a checkpoint
    in them, which will come again: what they took besides is spread over all steps.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._at: float | None = None
        self._stretches: deque[tuple[int, float]] = deque(maxlen=1024)

    def reached(self, step: int, now: float) -> None:
        """Tell that `step` was taken at the time `now`, in seconds of any clock."""
        if self._at is not None and step > self._step:
            self._stretches.append((step - self._step, now - self._at))
        self._step, self._at = step, now

    def left(self, steps: int) -> float | None:
        """Seconds until the step of number `steps`; None where there is too little to go by."""
        if len(self._stretches) < FEWEST:
            return None
        recent = list(self._stretches)[-RECENT:]
        usual = median(seconds / count for count, seconds in recent)
        besides = sum(
            seconds - usual * count
            for count, seconds in self._stretches
            if seconds > 2 * usual * count
        )
        seen = sum(count for count, _ in self._stretches)
        return (steps - self._step) * (usual + besides / seen)
