"""Models on the hub, through the real client: fetching, pinning, cache, offline, publishing."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData, constants
from little import model
from stub import Hub, commit_of

import flowlm
from flowlm.cli import main
from flowlm.cli.lines import one_line
from flowlm.errors import Refusal
from flowlm.hub.names import hub_id
from flowlm.hub.transfer import locate
from flowlm.model.language_model import LanguageModel


def put(hub: Hub, name: str, model: LanguageModel, place: Path, revision: str = "main") -> None:
    model.save(place)
    hub.put(name, place, revision)
    shutil.rmtree(place)


def test_a_model_is_loaded_by_its_hub_id(hub: Hub, small: LanguageModel, tmp_path: Path) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    loaded = flowlm.load("somebody/small")
    assert loaded.experiment == small.experiment
    assert loaded.generate(3, steps=4) == small.generate(3, steps=4)
    assert str(locate("somebody/small")).startswith(str(tmp_path / "cache"))


def test_a_released_model_is_loaded_by_its_hub_id(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    small.save(tmp_path / "export")
    assert main(["convert", str(tmp_path / "export"), str(tmp_path / "released")]) == 0
    hub.put("owner/FLM-small", tmp_path / "released")
    assert {"config.json", "model.safetensors"} <= hub.repositories["owner/FLM-small"][
        "main"
    ].keys()
    assert flowlm.load("owner/FLM-small").generate(3, 4) == small.generate(3, 4)


def test_revisions_are_pinned(hub: Hub, tmp_path: Path) -> None:
    """A branch, a tag or a commit; the newest by default."""
    old, new = model(1), model(2)
    put(hub, "somebody/small", old, tmp_path / "export", "v1.0")
    put(hub, "somebody/small", new, tmp_path / "export", "main")
    commits = {name: commit_of(files) for name, files in hub.repositories["somebody/small"].items()}
    texts = {"v1.0": old.generate(5, 4), "main": new.generate(5, 4)}
    assert texts["v1.0"] != texts["main"]
    assert flowlm.load("somebody/small").generate(5, 4) == texts["main"]
    for revision in texts:
        for name in (revision, commits[revision]):
            assert flowlm.load(f"somebody/small@{name}").generate(5, 4) == texts[revision]
    with pytest.raises(Refusal, match="somebody/small@v7"):
        flowlm.load("somebody/small@v7")


def test_what_is_cached_is_not_fetched_again(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    flowlm.load("somebody/small")
    assert any("model.safetensors" in asked and "GET" in asked for asked in hub.asked)
    hub.asked.clear()
    flowlm.load("somebody/small")
    assert not any("model.safetensors" in asked and "GET" in asked for asked in hub.asked)


def test_offline_the_cache_is_enough(
    hub: Hub, small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    flowlm.load("somebody/small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert flowlm.load("somebody/small").generate(2) == small.generate(2)
    with pytest.raises(Refusal, match="somebody/other"):
        flowlm.load("somebody/other")
    assert hub.asked == []


def test_offline_is_what_the_environment_says(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    """HF_HUB_OFFLINE, HF_HUB_CACHE and HF_ENDPOINT are the client's, and so are ours."""
    put(hub, "somebody/small", small, tmp_path / "export")
    code = "import flowlm; print(flowlm.load('somebody/small').generate(1))"
    environment = os.environ | {
        "HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "another"),
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    wanted = f"{small.generate(1)}\n"
    for offline in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"HF_HUB_OFFLINE": offline},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout == wanted, done.stderr
        hub.repositories.clear()


def test_fetching_shows_its_progress(
    hub: Hub, small: LanguageModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    assert main(["sample", "somebody/small", "--num", "1"]) == 0
    shown = capfd.readouterr()
    assert "100%" in shown.err
    assert "100%" not in shown.out
    assert one_line(small.generate(1)[0]) in shown.out


def test_no_pickle_is_fetched(hub: Hub, small: LanguageModel, tmp_path: Path) -> None:
    small.save(tmp_path / "export")
    for name in ("model.ckpt", "pytorch_model.bin", "evil.py", "model.safetensors.pkl"):
        (tmp_path / "export" / name).write_bytes(b"boom")
    hub.put("somebody/small", tmp_path / "export")
    place = locate("somebody/small")
    assert sorted(file.name for file in place.iterdir()) == [
        "experiment.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert not any("ckpt" in asked or "evil" in asked for asked in hub.asked)


def test_what_is_here_comes_first(hub: Hub, small: LanguageModel, tmp_path: Path) -> None:
    small.save(tmp_path / "somebody" / "small")
    assert flowlm.load("somebody/small").generate(1) == small.generate(1)
    # A slip of the pen in a path is not looked up on the internet.
    with pytest.raises(Refusal, match=r"somebody/smal does not exist here"):
        flowlm.load("somebody/smal")
    with pytest.raises(Refusal, match=r"other/small does not exist here"):
        flowlm.load(Path("other/small"))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/name", True), ("owner/name@v1.0", True), ("o-1/n.a_m-e@refs/pr/3", True),
        ("owner", False), ("owner/name/more", False), ("/owner/name", False), ("../name", False),
        ("./name", False), ("owner/..", False), ("owner/", False), ("owner/name@", False),
        ("owner/na me", False), ("owner/name@a@b", False), ("", False), ("~/name", False),
    ],
)  # fmt: skip
def test_what_reads_as_a_hub_id(
    name: str, is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (hub_id(name) is not None) == is_one


def test_a_model_that_is_nowhere_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["sample"], ["evaluate"], ["publish"], ["convert"]):
        more = {"publish": ["me/x"], "convert": ["out"]}.get(command[0], [])
        assert main([*command, "no-one/nothing", *more]) == 2
        before, said, *more = capsys.readouterr().err.splitlines()
        assert before.endswith("no-one/nothing is not a path here: looking for it on the "
                               "Hugging Face hub.")  # fmt: skip
        assert "no-one/nothing does not exist here" in said
        assert not more
    assert main(["train", "text-flow-map", "--method.teacher", "no-one/nothing"]) == 2
    assert not Path("out").exists()


def test_without_a_connection_a_sentence_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["sample", "somebody/small"]) == 2
    before, said, *more = capsys.readouterr().err.splitlines()
    assert "somebody/small" in before
    assert "somebody/small" in said
    assert "connection" in said
    assert not more
    with pytest.raises(Refusal, match="me/small could not be published"):
        model().push("me/small")


def test_a_cut_download_is_noticed(hub: Hub, small: LanguageModel, tmp_path: Path) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    files = hub.repositories["somebody/small"]["main"]
    files["model.safetensors"] = files["model.safetensors"][:-50]
    with pytest.raises(Refusal, match=r"model\.safetensors"):
        flowlm.load("somebody/small")


def test_a_model_from_the_hub_is_evaluated_and_teaches(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    put(hub, "somebody/small", small, tmp_path / "export")
    assert main(["evaluate", "somebody/small", "--num", "3", "--steps", "1"]) == 0
    assert json.loads(Path("reports/small/report.json").read_text())["rows"][0]["samples"] == 3
    Path("text.txt").write_text("abcdefghij\n" * 50)
    words = ["--data.path", "text.txt", "--train.steps", "1", "--train.batch", "2", "--out", "map"]
    words += ["--train.device", "cpu", "--train.precision", "float32"]
    assert main(["train", "text-flow-map", "--method.teacher", "somebody/small", *words]) == 0
    assert flowlm.load("map").experiment.size == small.experiment.size
    assert flowlm.load("map").experiment.method.teacher == "hf:somebody/small"


# --- publishing -------------------------------------------------------------------------------


REPORT = Path("reports/run/report.json")
"""Where the report of an export `run` goes."""


def evaluated(small: LanguageModel, place: Path) -> Path:
    small.save(place)
    before = sorted(place.rglob("*"))
    assert main(["evaluate", str(place), "--num", "20", "--steps", "1", "4"]) == 0
    assert sorted(place.rglob("*")) == before, "nothing is written into an export"
    return place


def test_a_run_is_published_with_its_card(
    hub: Hub, small: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated(small, tmp_path / "run")
    capsys.readouterr()
    assert main(["publish", str(run), "me/my-flow", "--private"]) == 0
    assert f"{hub.address}/me/my-flow" in capsys.readouterr().out
    assert hub.private == {"me/my-flow": True}
    files = hub.repositories["me/my-flow"]["main"]
    assert sorted(files) == [
        "README.md", "experiment.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert flowlm.load("me/my-flow").generate(3, 4) == small.generate(3, 4)
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: flowlm\n")
    report = json.loads(REPORT.read_text())
    for row in report["rows"]:
        cells = [str(row["steps"]), f"{row['sample_entropy']:.3f}"]
        cells.append(f"{1000 * row['seconds']:.2f} ms")
        assert f"| {' | '.join(cells)} |" in card
    assert "20 texts a row" in card
    for texts in report["samples"].values():
        assert texts[0]["text"].splitlines()[0] in card
    assert 'flowlm.load("hf:me/my-flow")' in card
    assert "# my-flow\n" in card
    assert "NLL" not in card, "there was no judge"
    everything = b"".join(files.values()).decode("latin-1")
    assert "somebody" not in everything, "a path of the author's machine"
    assert "corpus.txt" in card
    assert str(tmp_path) not in everything


@pytest.fixture
def judged() -> dict[str, Any]:
    """What a report of a text's model has."""
    rows = [
        {"method": "Flow", "steps": 1, "nll": 3.25, "sample_entropy": 1e-05, "samples": 20},
        {"method": "Flow", "steps": 8, "nll": math.nan, "sample_entropy": 2.5},
        {"method": "Flow", "steps": "full"},
    ]
    held_out = {"method": "Flow", "nats": 2.125, "error": 0.1, "kind": "upper bound", "of": "it"}
    return {
        "title": "", "summary": "", "rows": rows, "held_out": [held_out],
        "judge": 'gpt2: "large"\n',
    }  # fmt: skip


def data_of(card: str) -> ModelCardData:
    """The front matter as the hub's own client reads it."""
    data = ModelCard(card).data
    assert isinstance(data, ModelCardData)
    return data


def test_the_hub_reads_licence_and_results_of_a_card(
    hub: Hub, small: LanguageModel, judged: dict[str, Any]
) -> None:
    small.push("me/my-flow", judged, license="cc-by-4.0")
    data = data_of(hub.repositories["me/my-flow"]["main"]["README.md"].decode())
    assert (data.license, data.library_name) == ("cc-by-4.0", "flowlm")
    assert data.pipeline_tag == "text-generation"
    assert "flow-language-model" in (data.tags or [])
    assert data.model_name == "my-flow"
    results = data.eval_results
    assert results is not None
    assert {one.task_type for one in results} == {"text-generation"}
    assert {(one.dataset_type, one.dataset_name) for one in results} == {
        ("corpus.txt", "corpus.txt")
    }
    assert [(one.metric_type, one.metric_value, one.metric_name) for one in results] == [
        ("held_out_nats", 2.125, "Held-out nats per token (upper bound, of it)"),
        ("nll", 3.25, 'Nats per token of its texts under gpt2: "large" , 1 step'),
        ("sample_entropy", 1e-05, "Sample entropy of its texts, nats, 1 step"),
        ("sample_entropy", 2.5, "Sample entropy of its texts, nats, 8 steps"),
    ]


def test_results_of_a_card_are_those_of_the_report(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    run = evaluated(small, tmp_path / "run")
    assert main(["publish", str(run), "me/my-flow", "--license", "apache-2.0"]) == 0
    data = data_of(hub.repositories["me/my-flow"]["main"]["README.md"].decode())
    assert data.license == "apache-2.0"
    wanted = [row["sample_entropy"] for row in json.loads(REPORT.read_text())["rows"]]
    assert [one.metric_value for one in data.eval_results or []] == wanted
    assert len(wanted) == 2


def test_without_a_report_a_card_has_no_results(hub: Hub, small: LanguageModel) -> None:
    small.push("me/my-flow")
    data = data_of(hub.repositories["me/my-flow"]["main"]["README.md"].decode())
    assert (data.license, data.eval_results) == (None, None)


@pytest.mark.parametrize("name", ["Apache-2.0", "", "mit\ntags: x", "apache 2", "-", "x" * 65])
def test_a_licence_that_is_none_is_refused(
    name: str, hub: Hub, small: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refusal, match="lower-case letters, digits, dots and dashes"):
        small.push("me/small", license=name)
    assert main(["publish", "demo", "me/small", f"--license={name}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flowlm: The licence must be")
    assert len(said.splitlines()) == 1
    assert hub.asked == []


def test_the_code_of_a_card_runs(hub: Hub, small: LanguageModel) -> None:
    assert small.push("me/my-flow") == f"{hub.address}/me/my-flow"
    card = hub.repositories["me/my-flow"]["main"]["README.md"].decode()
    assert "not been evaluated" in card
    code = card.split("```python\n")[1].split("```")[0]
    exec(compile(code, "card", "exec"), {})


def test_figures_of_other_weights_are_not_published(
    hub: Hub, small: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated(small, tmp_path / "run")
    model(3).save(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", run)
    assert main(["publish", str(run), "me/my-flow"]) == 2
    assert "other weights" in capsys.readouterr().err
    for text in ("{}", "[", "null", '{"title": 1}'):
        REPORT.write_text(text)
        assert main(["publish", str(run), "me/my-flow"]) == 2
        assert "report.json" in capsys.readouterr().err
    assert main(["publish", str(run), "me/my-flow", "--report", "nowhere.json"]) == 2
    assert hub.repositories == {}


@pytest.mark.parametrize("name", ["me", "me/x@v1", "me/x/y", "/tmp/x", ""])
def test_a_place_that_is_none_is_refused(name: str, hub: Hub, small: LanguageModel) -> None:
    with pytest.raises(Refusal, match="USER/NAME"):
        small.push(name)
    assert hub.asked == []


def test_publishing_needs_a_login(
    hub: Hub, small: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Refusal, match="hf auth login"):
        small.push("me/small")
    assert hub.repositories == {}


def test_a_converted_model_says_where_it_is_from(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    small.save(tmp_path / "export")
    main(["convert", str(tmp_path / "export"), str(tmp_path / "released")])
    assert main(["publish", str(tmp_path / "released"), "me/x"]) == 0
    card = hub.repositories["me/x"]["main"]["README.md"].decode()
    assert "officially released" in card
    assert flowlm.load("me/x").generate(2) == small.generate(2)


# --- tokenizers -------------------------------------------------------------------------------


def test_tokenizers_come_from_the_hub(
    hub: Hub, small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.save(tmp_path / "export")
    (tmp_path / "export/tokenizer.json").rename(tmp_path / "tokenizer.json")
    (tmp_path / "hub").mkdir()
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "hub")
    hub.put("google-bert/bert-base-uncased", tmp_path / "hub")
    hub.put("me/tokens", tmp_path / "hub", "v2")
    for name in ("bert-base-uncased", "me/tokens@v2", tmp_path / "hub", "tokenizer.json"):
        loaded = flowlm.load(tmp_path / "export", tokenizer=name)
        assert loaded.generate(2) == small.generate(2)
    with pytest.raises(Refusal, match="nothing is no tokenizer"):
        flowlm.load(tmp_path / "export", tokenizer="nothing")
    with pytest.raises(Refusal, match=r"no tokenizer\.json"):
        flowlm.load(tmp_path / "export", tokenizer=tmp_path / "cache")
    assert main(["sample", str(tmp_path / "export"), "--tokenizer", "me/tokens@v2"]) == 0


def test_a_released_model_finds_the_tokenizer_that_it_is_known_for(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flowlm.model.loading.OF_VOCABULARY", {12: "bert-base-uncased"})
    export, released, kept = tmp_path / "export", tmp_path / "released", tmp_path / "kept"
    small = model()
    small.save(export)
    main(["convert", str(export), str(released)])
    kept.mkdir()
    (released / "tokenizer.json").rename(kept / "tokenizer.json")
    # It cannot be had: said once, and tokens are still written.
    with pytest.warns(UserWarning, match="tokens only") as said:
        loaded = flowlm.load(released)
    assert ["looking for it" in str(one.message) for one in said] == [True, False]
    assert loaded.tokenizer is None
    assert torch.equal(loaded.sample(3, 2), small.sample(3, 2))
    assert main(["sample", str(released), "--num", "1"]) == 0
    shown = capsys.readouterr()
    known = "flowlm: hf:google-bert/bert-base-uncased"
    assert shown.err.count(f"{known} is not a path here") == 1
    assert shown.err.count(f"{known} does not exist here") == 1
    assert len(shown.err.splitlines()) == 3, "two notices, and the heading"
    assert "Warning" not in shown.err
    assert shown.out.splitlines()[-1].split() == [str(t) for t in small.sample(1)[0].tolist()]
    hub.put("google-bert/bert-base-uncased", kept)
    assert flowlm.load(released).generate(3, 2) == small.generate(3, 2)


def test_the_library_may_be_absent(small: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: flowlm.load("owner/name"), lambda: small.push("me/name")):
        with pytest.raises(Refusal, match=r"flowlm\[hub\]"):
            call()


def test_an_unknown_model_without_a_tokenizer_asks_for_none(
    hub: Hub, small: LanguageModel, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    small.tokenizer = None
    small.save(tmp_path / "export")
    loaded = flowlm.load(tmp_path / "export")
    with pytest.raises(Refusal, match="tokenizer"):
        loaded.generate(1)
    assert not (tmp_path / "export/tokenizer.json").exists()
    assert hub.asked == []
    assert not recwarn.list
