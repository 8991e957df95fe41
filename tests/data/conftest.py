"""What the tests of the data share: refusals of one sentence that names things, full disks."""

from __future__ import annotations

import re
import resource
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


@contextmanager
def _files_limited_to(size: int) -> Iterator[None]:
    """The next write past `size` bytes of any file fails, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture
def files_limited_to() -> Callable[[int], AbstractContextManager[None]]:
    return _files_limited_to


@pytest.fixture
def refused() -> Callable[..., AbstractContextManager[None]]:
    return _refused
