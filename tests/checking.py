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
from types import CodeType, FunctionType
from typing import Any

import jaxtyping

OFTEN = 1 if os.environ.get("EVERY_CALL") == "1" else 16
"""So many calls of a function are checked at the beginning of a test, and then one in as many."""

_jaxtyped = jaxtyping.jaxtyped
_calls: Counter[CodeType] = Counter()


def begin_anew() -> None:
    """Forget who was called."""
    _calls.clear()


def sampled(*, typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyping.jaxtyped`, for functions at some of their calls; for classes it is the same."""
    check = _jaxtyped(typechecker=typechecker)

    def decorate(of: Any) -> Any:
        checked = check(of)
        if not isinstance(of, FunctionType):
            return checked
        # Not the function: one made anew in every call of another would keep what it refers to.
        code = of.__code__

        @functools.wraps(of)
        def call(*arguments: Any, **options: Any) -> Any:
            number = _calls[code]
            _calls[code] = number + 1
            if number < OFTEN or number % OFTEN == 0:
                return checked(*arguments, **options)
            return of(*arguments, **options)

        return call

    return decorate
