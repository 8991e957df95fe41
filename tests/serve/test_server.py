"""The server over HTTP: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import flowlm
from flowlm.model.language_model import LanguageModel

httpx = pytest.importorskip("httpx", reason="pip install 'flowlm[dev]'")
pytest.importorskip("starlette", reason="pip install 'flowlm[serve]'")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from flowlm.serve.app import Service, application  # noqa: E402
from flowlm.serve.bodies import Completion, Film  # noqa: E402
from flowlm.serve.engine import Engine, Full  # noqa: E402
from flowlm.serve.guard import BODY, Access  # noqa: E402
from flowlm.serve.metrics import Metrics  # noqa: E402
from flowlm.serve.texts import Texts  # noqa: E402
from flowlm.tasks.generated import Generated  # noqa: E402

HOSTS = frozenset({"testserver", "localhost", "127.0.0.1"})


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return flowlm.load("demo", "cpu")


@pytest.fixture(scope="module")
def offered(demo: LanguageModel) -> Iterator[Service]:
    metrics = Metrics()
    engine = Engine(demo, 64, 64, metrics)
    yield Service("demo", Texts(demo), engine, metrics, 30.0)
    engine.close(5)


@pytest.fixture(scope="module")
def client(offered: Service) -> Iterator[TestClient]:
    with TestClient(application(offered, Access(HOSTS)), raise_server_exceptions=False) as found:
        yield found


def complete(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: TestClient, path: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    said = answer.json()["error"]
    assert said["message"].endswith(".")
    return said


def test_a_completion_is_what_the_model_writes(client: TestClient, demo: LanguageModel) -> None:
    answer = complete(client, prompt="these old sailors", n=3, steps=4, seed=5)
    whole = demo.generate(3, 4, 5, "these old sailors")
    said = [choice["text"] for choice in answer["choices"]]
    assert [f"these old sailors {text}" for text in said] == whole
    echoed = complete(client, prompt="these old sailors", n=3, steps=4, seed=5, echo=True)
    assert [choice["text"] for choice in echoed["choices"]] == whole
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 45, "total_tokens": 54}
    assert answer["flowlm"] | {"seconds": 0} == {
        "seed": 5, "steps": 4, "evaluations": 4, "seconds": 0,
    }  # fmt: skip


def test_suffix_and_template_fill_gaps(client: TestClient, demo: LanguageModel) -> None:
    answer = complete(client, prompt="these", suffix="their rope", steps=8, seed=1)
    (whole,) = demo.infill("these[..]their rope", steps=8, seed=1)
    assert f"these {answer['choices'][0]['text']} their rope" == whole
    template = "these [..] behind their [..] rope"
    answer = complete(client, template=template, steps=8, seed=2)
    assert answer["choices"][0]["text"] == demo.infill(template, steps=8, seed=2)[0]


def test_several_prompts_and_fewer_tokens(client: TestClient, demo: LanguageModel) -> None:
    answer = complete(client, prompt=["this old", "", "these new"], n=2, seed=0, max_tokens=4)
    texts = [choice["text"] for choice in answer["choices"]]
    assert [len(text.split()) for text in texts] == [4, 4, 6, 6, 4, 4]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}


def test_without_a_seed_texts_differ_and_the_seed_is_told(client: TestClient) -> None:
    first, second = (complete(client, steps=2) for _ in range(2))
    assert first["flowlm"]["seed"] != second["flowlm"]["seed"]
    again = complete(client, steps=2, seed=first["flowlm"]["seed"])
    assert again["choices"] == first["choices"]


def test_events_bring_each_text_whole(client: TestClient, demo: LanguageModel) -> None:
    body = {"prompt": "this", "n": 2, "stream": True, "seed": 3, "echo": True}
    answer = client.post("/v1/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = (e.removeprefix("data: ") for e in answer.text.strip().split("\n\n"))
    assert done == "[DONE]"
    said = [json.loads(event)["choices"][0] for event in events]
    assert [choice["text"] for choice in said] == demo.generate(2, 1, 3, "this")


def test_a_film_ends_in_the_text(client: TestClient, demo: LanguageModel) -> None:
    pinned: list[str | None] = [None] * 18
    pinned[2] = "bakers"
    answer = client.post("/v1/film", json={"steps": 3, "seed": 4, "given": pinned})
    *frames, last = map(json.loads, answer.text.splitlines())
    assert [frame["step"] for frame in frames] == [0, 1, 2]
    assert all(frame["words"][2] == "bakers" for frame in frames)
    assert last["words"] == frames[-1]["words"]
    assert last["valid"] is bool(Generated().valid(torch.tensor([last["tokens"]])))
    assert last["evaluations"] == 3
    assert frames[0]["alternatives"][2] == [["bakers", 1.0]]
    assert len(frames[0]["alternatives"][0]) == 5


def test_samplers_and_their_settings(client: TestClient, demo: LanguageModel) -> None:
    from flowlm.sampling import Bridge, Jumps

    answer = complete(client, sampler="bridge", temperature=0.5, steps=4, seed=0, echo=True)
    assert answer["choices"][0]["text"] == demo.generate(
        1, 4, 0, sampler=Bridge(temperature=0.5)
    )[0]  # fmt: skip
    answer = complete(client, gamma=1.0, steps=4, seed=0)
    assert answer["choices"][0]["text"] == demo.generate(1, 4, 0, sampler=Jumps(gamma=1.0))[0]
    # What OpenAI's clients send by default is no setting.
    assert complete(client, top_p=1, temperature=1, user="me")["choices"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"promt": "these"}, "promt", "promt"),
        ({"prompt": "xyzzy"}, "prompt", "xyzzy"),
        ({"prompt": 3}, "prompt", "text"),
        ({"prompt": " ".join(["these"] * 18)}, "prompt", "room"),
        ({"prompt": []}, "prompt", "1 to 256"),
        ({"prompt": ["this"], "suffix": "rope"}, "prompt", "one prompt"),
        ({"template": "these"}, "template", "no gap"),
        ({"template": "these [..]", "prompt": "this"}, "template", "both"),
        ({"steps": 0}, "steps", "256"),
        ({"steps": True}, "steps", "whole number"),
        ({"steps": 2.0}, "steps", "whole number"),
        ({"n": 2000}, "n", "1024"),
        ({"n": 1000}, "n", "16,384"),
        ({"seed": -1}, "seed", "2^32"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"temperature": -1}, "temperature", "temperature"),
        ({"temperature": 0.5, "sampler": "refine"}, "temperature", "no temperature"),
        ({"gamma": 2}, "gamma", "between 0 and 1"),
        ({"sampler": "unmask"}, "sampler", "does not write"),
        ({"sampler": "residual-jumps"}, "sampler", "does not write"),
        ({"sampler": "heum"}, "sampler", "jumps"),
        ({"model": "gpt-4"}, "model", "demo"),
    ],
)
def test_what_cannot_be_is_refused(
    client: TestClient, body: dict[str, Any], field: str, said: str
) -> None:
    error = refusal(client, **body)
    assert error["param"] == field
    assert said in error["message"]
    assert "--" not in error["message"]


def test_films_that_cannot_be(client: TestClient) -> None:
    assert "places" in refusal(client, "/v1/film", given=["this"])["message"]
    assert "xyzzy" in refusal(client, "/v1/film", given=["xyzzy"] + [None] * 17)["message"]
    assert "one prompt" in refusal(client, "/v1/film", prompt=["this"])["message"]
    assert "both" in refusal(client, "/v1/film", given=[None] * 18, prompt="this")["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "JSON"),
        (b"[1]", "object"),
        (b"\xff", "JSON"),
        (b'{"n": NaN}', "NaN"),
        (b'{"n": 1, "n": 2}', "twice"),
        (b"[" * 30_000, "JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "JSON"),
    ],
)
def test_bodies_that_are_no_requests(client: TestClient, body: bytes, said: str) -> None:
    answer = client.post("/v1/completions", content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_sizes_names_and_paths(client: TestClient) -> None:
    assert client.post("/v1/completions", content=b" " * (BODY + 1)).status_code == 413
    assert client.post("/v1/completions", content=iter([b"{}"])).status_code == 411
    assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/nothing").status_code == 404
    assert client.get("/page/../flowlm.py").status_code == 404
    assert client.get("/v1/completions").status_code == 405
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_has_all_that_it_names(client: TestClient) -> None:
    page = client.get("/").text
    script = client.get("/page/server.js")
    named = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    named += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', script.text)]
    assert {"/page/server.js", "/page/page.js", "/page/style.css"} == set(named)
    for name in named:
        answer = client.get(name)
        assert answer.status_code == 200
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert answer.headers["content-type"].startswith(kind)


def test_models_vocabulary_and_metrics(client: TestClient, demo: LanguageModel) -> None:
    (entry,) = client.get("/v1/models").json()["data"]
    assert entry["id"] == "demo"
    assert entry["flowlm"]["length"] == 18
    assert entry["flowlm"]["settings"] == ["temperature", "gamma"]
    assert {"jumps", "bridge"} <= set(entry["flowlm"]["samplers"])
    assert "residual-jumps" not in entry["flowlm"]["samplers"]
    words = client.get("/v1/vocabulary").json()["words"]
    assert words == [demo.tokenizer.decode([i]) for i in range(61)]  # pyright: ignore
    before = figures(client)['flowlm_requests_total{path="/v1/completions",status="400"}']
    refusal(client, steps=0)
    after = figures(client)['flowlm_requests_total{path="/v1/completions",status="400"}']
    assert after == before + 1
    assert client.get("/healthz").text == client.get("/readyz").text == "ok\n"


def figures(client: TestClient) -> dict[str, float]:
    lines = (line for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_token_and_an_origin(offered: Service) -> None:
    access = Access(HOSTS, token="secret", origin="https://example.org")
    with TestClient(application(offered, access)) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/healthz").status_code == 200
        said = client.get("/v1/models", headers={"authorization": "Bearer secret"})
        assert said.headers["access-control-allow-origin"] == "https://example.org"
        before = client.options("/v1/completions")
        assert before.status_code == 204
        assert "authorization" in before.headers["access-control-allow-headers"]


def test_other_names_and_a_frame(offered: Service, client: TestClient) -> None:
    assert "frame-ancestors 'none'" in client.get("/").headers["content-security-policy"]
    access = Access(HOSTS | {"models.example.org"}, frame="https://example.org")
    with TestClient(application(offered, access)) as other:
        answer = other.get("/", headers={"host": "Models.example.org:8080"})
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.endswith("frame-ancestors https://example.org")
        assert other.get("/", headers={"host": "example.org"}).status_code == 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--names", "two words"], "--names 'two words' is no address"),
        (["--names", "a.org", ""], "--names '' is no address"),
        (["--frame", "example.org"], "--frame 'example.org' is no origin"),
        (["--cors", "*"], "--cors '*' is no origin"),
        (["--host", "a/b"], "--host 'a/b' is no address"),
    ],
)
def test_names_and_origins_that_are_none(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowlm.cli import main

    assert main(["serve", "demo", *words]) == 2
    assert said in capsys.readouterr().err


def test_whoever_comes_too_late_is_told(demo: LanguageModel) -> None:
    metrics = Metrics()
    engine = Engine(demo, 1, 1, metrics)
    slow = Service("demo", Texts(demo), engine, metrics, patience=0.05)
    with TestClient(application(slow, Access(HOSTS))) as client:
        assert client.post("/v1/completions", json={"steps": 256, "n": 9}).status_code == 503
        statuses = []

        def ask() -> None:
            statuses.append(client.post("/v1/completions", json={"steps": 256, "n": 9}))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in statuses} <= {429, 503}
        full = [answer for answer in statuses if answer.status_code == 429]
        assert full
        assert full[0].headers["retry-after"] == "1"
        # What was given up is not written on.
        time.sleep(0.3)
        assert client.post("/v1/completions", json={"steps": 1}).status_code in (200, 503)
    engine.close(5)


def test_a_stream_is_refused_before_it_begins(
    offered: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(order: object) -> None:
        raise Full

    monkeypatch.setattr(offered.engine, "submit", full)
    answer = client.post("/v1/completions", json={"stream": True})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


# --- bodies of any kind ---------------------------------------------------------------------------

SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.floats(-2, 3), st.text(max_size=12),
    st.sampled_from(["these old", "these [..] rope", "jumps", "bridge", "heun", "demo"]),
)  # fmt: skip
VALUE = st.one_of(SCALAR, st.lists(SCALAR, max_size=4), st.dictionaries(st.text(), SCALAR))
BODIES = st.dictionaries(
    st.sampled_from([*Completion.__dataclass_fields__, *Film.__dataclass_fields__, "logprobs"]),
    VALUE,
    max_size=6,
)


@pytest.mark.parametrize(
    "examples", [20, pytest.param(10_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_no_body_breaks_the_server(client: TestClient, examples: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

    @settings(max_examples=examples, deadline=None, suppress_health_check=checks)
    @given(BODIES, st.sampled_from(["/v1/completions", "/v1/film"]))
    def tried(body: dict[str, Any], path: str) -> None:
        answer = client.post(path, json=body)
        assert answer.status_code in (200, 400), (body, answer.text)

    tried()


# --- a process of its own -------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    words = [sys.executable, "-m", "flowlm", "serve", "demo", "--port", "0"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1], process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_openai_s_client_gets_prompts_and_gaps_filled(server: tuple[str, Any]) -> None:
    openai = pytest.importorskip("openai", reason="pip install 'flowlm[dev]'")
    client = openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["demo"]
    answer = client.completions.create(model="demo", prompt="these old", n=2, seed=1)
    assert len(answer.choices) == 2
    demo = flowlm.load("demo", "cpu")
    assert [f"these old {c.text}" for c in answer.choices] == demo.generate(2, 1, 1, "these old")
    filled = client.completions.create(
        model="demo", prompt="these", suffix="their rope", extra_body={"steps": 8}, seed=2
    )
    (whole,) = demo.infill("these[..]their rope", steps=8, seed=2)
    assert f"these {filled.choices[0].text} their rope" == whole
    events = client.completions.create(model="demo", prompt="this", stream=True, seed=3)
    assert f"this {''.join(e.choices[0].text for e in events)}" == demo.generate(1, 1, 3, "this")[0]
    with pytest.raises(openai.BadRequestError, match="no field 'logit_bias'"):
        client.completions.create(model="demo", prompt="this", logit_bias={"1": 2})


@pytest.mark.slow
def test_a_stop_loses_no_accepted_request(server: tuple[str, Any]) -> None:
    place, process = server
    answers: list[Any] = []
    together = threading.Barrier(7)

    def ask(seed: int) -> None:
        body = {"steps": 50, "n": 4, "seed": seed}
        with httpx.Client(base_url=place, timeout=30) as client:
            client.get("/healthz")  # connected before the stop, however slow the machine
            together.wait(60)
            answers.append(client.post("/v1/completions", json=body))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    together.wait(60)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert process.wait(10) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_whoever_hangs_up_is_not_written_for(server: tuple[str, Any]) -> None:
    place, _ = server
    host, port = place.removeprefix("http://").split(":")
    body = json.dumps({"steps": 256, "n": 64}).encode()
    with socket.create_connection((host, int(port))) as line:
        head = ("POST /v1/completions HTTP/1.1", f"host: {host}", f"content-length: {len(body)}")
        line.sendall("\r\n".join((*head, "", "")).encode() + body)
        time.sleep(0.5)
    time.sleep(1.0)
    began = time.perf_counter()
    assert httpx.post(f"{place}/v1/completions", json={"steps": 1}).status_code == 200
    # 256 steps of 64 texts take some ten seconds.
    assert time.perf_counter() - began < 2
