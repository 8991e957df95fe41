"""`flowlm export --page`: one file that has all it needs, and sentences for what it cannot hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowlm
from flowlm.cli import main
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import LinearInput, PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.model.language_model import LanguageModel
from flowlm.model.page import LARGEST, page_of
from flowlm.nn import Size, hollow
from flowlm.page.alone import EXPORT, IMPORT, joined, source
from flowlm.sampling import Heun
from writing import usual

SIZE = Size(blocks=1, width=16, heads=2, condition=8, dropout=0.0)
POSTERIOR = Flow(input=PosteriorInput())


def made(
    method: Method, length: int = 8, letters: str = "abcdefghij", sampler: Any = None
) -> LanguageModel:
    tokenizer = Tokenizer.characters([letters])
    network = method.network(SIZE, tokenizer.vocab, length)
    way = sampler or usual(method)
    experiment = Experiment(
        "mine", method, way, Text(length=length, path="/home/me/diary.txt"), SIZE
    )
    return LanguageModel(experiment, network, tokenizer, length)


class Parts(HTMLParser):
    """Scripts by their ids, styles, the policy, and every address that the page names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.policy, self.addresses, self._inside = "", list[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.addresses += [told[name] or "" for name in ("src", "href", "action") if name in told]
        if told.get("http-equiv") == "Content-Security-Policy":
            self.policy = told["content"] or ""
        self._inside = told.get("id") or tag if tag in ("script", "style") else ""
        assert self._inside == "" or self._inside not in self.texts

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data


@pytest.fixture(scope="module")
def demo() -> str:
    return page_of(flowlm.load("demo", "cpu"), "demo")


def test_the_page_names_no_other_place(demo: str) -> None:
    assert not re.search(r"https?:|@import|url\(", demo)
    assert Parts(demo).addresses == ["data:,"]


def test_the_policy_allows_the_scripts_of_the_page_and_no_connection(demo: str) -> None:
    parts = Parts(demo)
    rules = {rule.split()[0]: rule.split()[1:] for rule in parts.policy.split("; ")}
    assert rules["default-src"] == rules["connect-src"] == ["'none'"]
    for kind, name in (("script-src", "script"), ("style-src", "style")):
        digest = base64.b64encode(hashlib.sha256(parts.texts[name].encode()).digest()).decode()
        assert rules[kind] == [f"'sha256-{digest}'"]
    assert set(parts.texts) == {"script", "style", "facts", "weights"}
    # The policy stands before all that it is about.
    assert demo.index("Content-Security-Policy") < demo.index("<style>") < demo.index("<script")


def test_weights_are_those_of_the_run_in_float16(demo: str) -> None:
    parts, model = Parts(demo), flowlm.load("demo", "cpu")
    numbers = np.frombuffer(base64.b64decode(parts.texts["weights"]), "<f2").astype(np.float32)
    first = 0
    for name, count in json.loads(parts.texts["facts"])["shapes"]:
        own = model.weights[name].flatten()
        kept = torch.from_numpy(numbers[first : first + count])
        assert torch.allclose(kept, own, rtol=2**-11, atol=2**-25), name
        first += count
    assert first == len(numbers) == 405_562
    assert len(demo) < 1.3e6


def test_the_clock_is_that_of_the_method(demo: str) -> None:
    facts = json.loads(Parts(demo).texts["facts"])
    taus = np.frombuffer(base64.b64decode(facts["clock"]), "<f4")
    clock = flowlm.load("demo", "cpu").experiment.method.time(61)
    assert clock is not None
    ts = torch.rand(1, 100)
    read = np.interp(ts[0].numpy(), np.linspace(0, 1, len(taus)), taus)
    assert np.allclose(clock.tau(ts)[0].numpy(), read, atol=1e-6)


def test_no_word_ends_the_script_and_no_path_is_told() -> None:
    method = FlowMap(input=PosteriorInput(), teacher="/home/me/secret")
    model = made(method, letters="</script>&\"'!-")
    page = page_of(model, "</title><script>")
    parts = Parts(page)
    assert set("</>&\"'!-") <= set(json.loads(parts.texts["facts"])["words"])
    assert set(parts.texts) == {"script", "style", "facts", "weights"}
    assert "/home" not in page
    assert "diary" not in page
    assert "secret" not in page


def test_scripts_are_joined_in_the_order_in_which_they_need_each_other() -> None:
    script = joined("engine/writer.js")
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    found = re.findall(r"^const \{ (.*) \} = \(\(\) => \{$", script, re.MULTILINE)
    names = [name for part in found for name in part.split(", ")]
    assert len(names) == len(set(names))
    assert {"start", "Model", "frames", "jump", "linear"} <= set(names)
    # What a file imports is what the other one exports.
    for name in ("engine/writer.js", "engine/denoiser.js", "engine/jumps.js", "server.js"):
        for imported in re.findall(r"^import \{ (.*) \} from", source(name), re.MULTILINE):
            assert set(imported.split(", ")) <= set(names)
    assert "</script" not in script
    assert "<!--" not in script
    assert EXPORT.search(source("page.js")) is not None
    assert IMPORT.search(source("page.js")) is None


def too_large() -> LanguageModel:
    with hollow():
        network = POSTERIOR.network(replace(SIZE, width=512, blocks=6), 12, 8)
    return LanguageModel(made(POSTERIOR).experiment, network, made(POSTERIOR).tokenizer, 8)


def overflowing() -> LanguageModel:
    model = made(POSTERIOR)
    model.network.head.bias.fill_(7e4)
    return model


def wordless() -> LanguageModel:
    model = made(POSTERIOR)
    return LanguageModel(model.experiment, model.network, None, 8)


REFUSED: dict[str, tuple[Callable[[], LanguageModel], str]] = {
    "method": (lambda: made(Masked()), "flows and flow maps, and this model is a Masked"),
    "input": (lambda: made(Flow(input=LinearInput())), "posterior or bayes, .* LinearInput"),
    "published input": (lambda: made(FlowMap()), "posterior or bayes, .* ProjectedInput"),
    "sampler": (lambda: made(POSTERIOR, sampler=Heun()), "Jumps and Euler, .* with Heun"),
    "size": (too_large, f"at most {LARGEST:,} parameters"),
    "tiny": (lambda: made(POSTERIOR, 2, "a"), "at least 16"),
    "float16": (overflowing, "float16 cannot hold"),
    "tokenizer": (wordless, "has no tokenizer: a page has no words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_the_page_does_not_run_is_refused(name: str) -> None:
    model, sentence = REFUSED[name]
    with pytest.raises(Refusal, match=sentence) as refusal:
        page_of(model(), "mine")
    assert str(refusal.value).endswith(".")


def test_the_command_writes_the_page_and_nothing_else(
    demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "demo.html"
    assert main(["export", "demo", "--page", str(file)]) == 0
    assert file.read_text("utf-8") == demo
    assert f"{file}: 1.2 MB." in capsys.readouterr().out
    assert main(["export", "demo", "--page", str(file)]) == 2  # not over another file
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["demo.html"]


@pytest.mark.parametrize("place", ["missing/demo.html", "a" * 300, "", "null\0byte", "."])
def test_a_place_that_cannot_be_written_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "demo", "--page", place]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flowlm: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_refused_model_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(Masked()).save(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--page", str(tmp_path / "page.html")]) == 2
    assert "flows and flow maps" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
