"""What the tests of the data share: a check that a refusal is one sentence that names things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from flowlm.errors import Refusal


@contextmanager
def _refused(*named: object) -> Iterator[None]:
    with pytest.raises(Refusal) as caught:
        yield
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"[.!?] +[A-Z]", message), f"more than one sentence: {message}"
    for name in named:
        assert str(name) in message


@pytest.fixture
def refused() -> Callable[..., AbstractContextManager[None]]:
    return _refused
