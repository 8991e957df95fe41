"""Load: the benchmark of the server sees what it is to see, and a request is cheap to read."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from torch.overrides import TorchFunctionMode

import flowlm

pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")

from benchmarks import serving as load
from benchmarks.loopback import serving

from flowlm.serve.bodies import Completion, read
from flowlm.serve.texts import Texts


class Counting(TorchFunctionMode):
    """Counts operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func.__name__)
        return func(*args, **kwargs or {})


def test_a_request_without_a_prompt_makes_no_tensor() -> None:
    texts = Texts(flowlm.load("demo", "cpu"))
    with Counting() as counted:
        wanted = texts.wanted(Completion(n=3, seed=1, steps=4, max_tokens=5))
        assert not wanted.prompted
        assert texts.told([7] * 18, wanted, 0, echo=False).split() == [texts.words[7]] * 5
    assert counted.names == []
    with Counting() as counted:
        assert texts.wanted(Completion(prompt=["", "these"])).prompted
    assert counted.names != []


def test_types_of_bodies_and_samplers_are_read_once() -> None:
    texts = Texts(flowlm.load("demo", "cpu"))

    def asked() -> list[str]:
        called: list[str] = []
        sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name))
        texts.wanted(read(b'{"n": 2, "gamma": 0.5}', Completion))
        sys.setprofile(None)
        return called

    assert {"read", "require_fields"} <= {*asked()}
    assert "get_type_hints" not in asked()


def test_shares_of_ordered_numbers() -> None:
    numbers = [float(i) for i in range(100)]
    assert [load.at(numbers, share) for share in (0, 0.5, 0.95, 1)] == [0, 50, 95, 99]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_the_benchmark_measures_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    amounts = load.Amounts(arriving=1, asking=0.2, rounds=1, requests=50)
    with serving() as server:
        found = asyncio.run(load.measured(server, amounts))
    with serving() as server:
        found["stopped"] = asyncio.run(load.stopped(server))
    load.show(found)
    late = found["arrivals"]
    assert late["statuses"] == {200: late["requests"]}
    assert 0 < late["p50_ms"] <= late["p95_ms"] <= late["most_ms"]
    assert set(found["crowd"]["statuses"]) <= {200, 429}
    assert sum(found["crowd"]["statuses"].values()) == load.CROWD
    assert found["throughput"]["ratio"] > 1
    assert found["growth"]["grown"] < 20
    assert found["stopped"]["answered_before"] < load.CLIENTS
    assert found["stopped"]["statuses"] == {200: load.CLIENTS}
    assert f"{load.CROWD} clients at once" in capsys.readouterr().out
