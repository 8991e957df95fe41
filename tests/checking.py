"""Types checked at the first calls of every function in every test, and at some of the others.

A check takes longer than many a tensor operation: at every call it would take half of the time of
all tests, most of it in loops that call one function with the same types again and again. With
EVERY_CALL=1 in the environment, as `make test-slow` has it, every call is checked.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import jaxtyping

OFTEN = 1 if os.environ.get("EVERY_CALL") == "1" else 16
"""So many calls of a function are checked at the beginning of a test, and then one in as many."""

_jaxtyped = jaxtyping.jaxtyped
_calls: Counter[tuple[str, str]] = Counter()
"""Of functions, by module and name: a function itself would keep what it has closed over alive."""


def begin_anew() -> None:
    """Forget who was called."""
    _calls.clear()


def sampled(*, typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyping.jaxtyped`, for functions at some of their calls; for classes it is the same."""
    check = _jaxtyped(typechecker=typechecker)

    def decorate(of: Any) -> Any:
        checked = check(of)
        if isinstance(of, type) or not callable(of):
            return checked

        name = of.__module__, of.__qualname__

        @functools.wraps(of)
        def call(*arguments: Any, **options: Any) -> Any:
            number = _calls[name]
            _calls[name] = number + 1
            if number < OFTEN or number % OFTEN == 0:
                return checked(*arguments, **options)
            return of(*arguments, **options)

        return call

    return decorate
