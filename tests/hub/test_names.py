"""Whether a name is a path or something on the hub; a path never becomes a download."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from little import model
from stub import Hub, commit_of

import flowlm
from flowlm.cli import main
from flowlm.data.corpora.tables import Table
from flowlm.data.finding import find_corpus, find_tokenizer, hub_corpus
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, require_places, rooted
from flowlm.hub.names import HubId, hub_id, located
from flowlm.hub.transfer import locate, pinned
from flowlm.judges.finding import find_judge
from flowlm.methods.flow_map import FlowMap
from flowlm.model.language_model import LanguageModel
from flowlm.recipes import RECIPES
from flowlm.tasks.generated import Generated
from gpt2 import write


def distilled(teacher: str | None, path: str = "text.txt", tokenizer: str | None = None):
    """The experiment of a flow map with these places."""
    method = FlowMap(teacher=teacher)
    return replace(RECIPES["text-flow-map"](), method=method, data=Text(path, tokenizer=tokenizer))


def teacher_of(experiment: Experiment) -> str | None:
    assert isinstance(experiment.method, FlowMap)
    return experiment.method.teacher


def text_of(experiment: Experiment) -> Text:
    assert isinstance(experiment.data, Text)
    return experiment.data


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hf:owner/name", HubId("owner/name", None)),
        ("hf:owner/name@v1", HubId("owner/name", "v1")),
        ("hf:runs/name", HubId("runs/name", None)),
        ("hf:here/name", HubId("here/name", None)),
        ("hf:owner/name.json", HubId("owner/name.json", None)),
        ("owner/Name-1.5", HubId("owner/Name-1.5", None)),
        ("owner/name@refs/pr/3", HubId("owner/name", "refs/pr/3")),
        ("here/name", None), ("runs/text-flow", None), ("data/lm1b", None), ("reports/x", None),
        ("owner/tokenizer.json", None), ("owner/a.TXT", None), ("owner/FLM.ckpt", None),
        ("owner/a.parquet", None), ("./owner/name", None), ("/owner/name", None),
        ("~/name", None), ("owner\\name", None), ("owner/more/name", None), ("owner/naïve", None),
        ("o" * 97 + "/name", None), ("owner/" + "n" * 5000, None), ("owner/na\0me", None),
    ],
)  # fmt: skip
def test_a_name_is_a_hub_id_only_where_no_path_could_be_meant(
    name: str, meant: HubId | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_id(name) == meant
    assert meant is None or hub_id(str(meant)) == meant
    assert hub_id(Path(name)) is None


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:a/b/c", "hf:/a/b", "hf:a/b@", "hf:a/b c"])
def test_what_follows_the_prefix_must_be_a_hub_id(name: str, hub: Hub) -> None:
    for call in (flowlm.load, find_tokenizer):
        with pytest.raises(Refusal, match="is not a hub id: write hf:owner/name"):
            call(name)
    assert hub.asked == []


def test_a_strangers_weights_are_not_taken_for_a_run(
    hub: Hub, small: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default directories of this package may be somebody's name on the hub."""
    small.save(tmp_path / "stranger")
    for name in ("runs/text-flow", "data/words", "reports/text-flow"):
        hub.put(name, tmp_path / "stranger")
    small.save(tmp_path / "own")
    Path("text.txt").write_text("abcdefghij\n" * 50)
    asked = [
        ["sample", "runs/text-flow"],
        ["sample", "reports/text-flow"],
        ["sample", "own", "--tokenizer", "data/words"],
        ["evaluate", "own", "--judge", "runs/text-flow"],
        ["train", "text-flow-map", "--method.teacher", "runs/text-flow", "--data.path", "text.txt"],
        ["train", "text-flow", "--data.path", "text.txt", "--data.tokenizer", "data/words"],
        ["train", "text-flow", "--data.path", "data/words"],
        ["prepare", "data/words", "--out", "out"],
        ["train", "--resume", "runs/text-flow"],
    ]
    for words in asked:
        assert main(words) == 2, words
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        name = next(word for word in words if word in hub.repositories)
        assert name in said
        assert "--resume" in words or f"hf:{name}" in said, "how it would be written"
    assert hub.asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "stranger", "text.txt"]
    assert flowlm.load("hf:runs/text-flow").generate(1) == small.generate(1)


class Rows(list):
    """The rows of a data set, which `datasets` would read over the network."""

    def iter(self, batch_size: int):
        return iter(self)


def test_it_is_said_before_anything_is_fetched(
    hub: Hub, small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.save(tmp_path / "export")
    hub.put("somebody/small", tmp_path / "export")
    said: list[tuple[str, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(
            warnings, "showwarning", lambda text, *_: said.append((str(text), len(hub.asked)))
        )
        for call in (flowlm.load, find_tokenizer):
            hub.asked.clear()
            call("somebody/small")
            assert hub.asked
        hub.asked.clear()
        monkeypatch.setattr(Table, "_open", lambda table: Rows([{"text": [table.revision] * 3}]))
        texts = hub_corpus(HubId("somebody/small", None), None, "text", 0.5, whole=False)
        assert set(texts.documents()) == {commit_of(hub.repositories["somebody/small"]["main"])}
    sentence = "hf:somebody/small is not a path here: looking for it on the Hugging Face hub."
    assert said == [(sentence, 0)] * 3


def test_a_data_set_is_read_at_one_commit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If main moves between two attempts, they are two preparations."""
    (tmp_path / "set").mkdir()
    commits = []
    for content in ("old", "new"):
        (tmp_path / "set/a.txt").write_text(content)
        hub.put("somebody/texts", tmp_path / "set")
        commits.append(commit_of(hub.repositories["somebody/texts"]["main"]))
        assert pinned(HubId("somebody/texts", None)) == HubId("somebody/texts", commits[-1])
        assert pinned(HubId("somebody/texts", "main")) == HubId("somebody/texts", commits[-1])
    assert commits[0] != commits[1]
    hub.asked.clear()
    assert pinned(HubId("somebody/texts", commits[0])).revision == commits[0]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert pinned(HubId("somebody/texts", "v1")) == HubId("somebody/texts", "v1")
    assert hub.asked == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(Refusal, match="hf:somebody/nothing does not exist here"):
        pinned(HubId("somebody/nothing", None))


def test_home_is_written_with_a_tilde(
    hub: Hub, small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small.save(tmp_path / "home/run")
    (tmp_path / "home/text.txt").write_text("one\ntwo\n")
    assert flowlm.load("~/run", tokenizer="~/run").generate(1) == small.generate(1)
    assert list(find_corpus("~/text.txt", "line", 0.5).documents()) == ["one", "two"]
    whole = rooted(distilled("~/run", "~/text.txt", "~/run"))
    assert teacher_of(whole) == str(tmp_path / "home/run")
    assert text_of(whole).path == str(tmp_path / "home/text.txt")
    assert text_of(whole).tokenizer == str(tmp_path / "home/run")
    assert located("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")


def test_an_empty_path_is_not_the_directory_of_now(
    hub: Hub, small: LanguageModel, tmp_path: Path
) -> None:
    """A variable of the shell that is not set."""
    small.save(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(Refusal, match="The empty path does not exist"):
        locate("")
    with pytest.raises(Refusal):
        flowlm.load("")
    with pytest.raises(Refusal, match="The empty path is no tokenizer"):
        find_tokenizer("")
    with pytest.raises(Refusal, match="The empty path does not exist"):
        find_corpus("", "line", 0.5)
    stored = rooted(distilled("", ""))
    assert (teacher_of(stored), text_of(stored).path) == ("", "")


# --- what a run stores ------------------------------------------------------------------------


def test_stored_places_mean_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "my [own] texts"
    (home / "mine/flow").mkdir(parents=True)
    (home / "mine/vocab").mkdir()
    for name in ("a.txt", "b.txt"):
        (home / "mine" / name).write_text("text")
    monkeypatch.chdir(home)
    own = rooted(distilled("mine/flow", "mine/a.txt", "mine/vocab"))
    pattern = text_of(rooted(distilled(None, "mine/*.txt"))).path
    monkeypatch.chdir(tmp_path)
    assert (teacher_of(own), text_of(own).path) == (f"{home}/mine/flow", f"{home}/mine/a.txt")
    assert text_of(own).tokenizer == f"{home}/mine/vocab"
    assert pattern is not None
    assert len(list(find_corpus(pattern, "line", 0.5).documents())) == 2
    assert rooted(own) == own
    for place in (teacher_of(own), text_of(own).tokenizer):
        assert hub_id(place or "") is None


def test_names_stay_names_and_hub_ids_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("characters", "bpe", "gpt2", "bert-base-uncased", None):
        stored = rooted(distilled("demo", tokenizer=name))
        assert (teacher_of(stored), text_of(stored).tokenizer) == ("demo", name)
    stored = rooted(distilled("owner/flow@v1", tokenizer="owner/words"))
    assert (teacher_of(stored), text_of(stored).tokenizer) == ("hf:owner/flow@v1", "hf:owner/words")
    assert rooted(stored) == stored
    assert text_of(rooted(distilled(None, "owner/text"))).path == str(tmp_path / "owner/text")
    # What is a directory here is a path, whatever else bears its name.
    for name in ("demo", "gpt2"):
        (tmp_path / name).mkdir()
    stored = rooted(distilled("demo", tokenizer="gpt2"))
    assert teacher_of(stored) == str(tmp_path / "demo")
    assert text_of(stored).tokenizer == str(tmp_path / "gpt2")
    sentences = replace(RECIPES["demo-flow"](), data=Generated())
    assert rooted(sentences) == sentences


def test_a_stored_place_that_is_gone_is_refused_and_not_looked_for(
    hub: Hub, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for teacher in (str(tmp_path / "gone"), "runs/flow", "somebody/flow"):
        with pytest.raises(Refusal, match=rf"teacher of .*run, {teacher}, .*experiment\.json\.$"):
            require_places(distilled(teacher), run)
    Path("text.txt").write_text("text")
    for teacher in (None, "demo", "hf:somebody/flow", str(run)):
        require_places(distilled(teacher), run)
        require_places(distilled(teacher, "*.txt"), run)
    with pytest.raises(Refusal, match=r"text of .*gone\.txt.*experiment\.json\.$"):
        require_places(distilled(None, str(tmp_path / "gone.txt")), run)
    (run / "tokens").mkdir()
    (run / "tokens/manifest.json").write_text("{}")
    require_places(distilled(None, str(tmp_path / "gone.txt")), run)
    require_places(replace(RECIPES["demo-flow"](), data=Generated()), run)
    assert hub.asked == []


def test_a_published_model_keeps_hub_ids_and_no_place_of_its_author(
    hub: Hub, tmp_path: Path
) -> None:
    shared = model()
    for teacher, tokenizer, wanted in (
        ("hf:owner/flow@v1", "hf:owner/words", ("hf:owner/flow@v1", "hf:owner/words")),
        (f"{tmp_path}/secret/flow", f"{tmp_path}/secret/words", ("flow", "words")),
        # Stored without the prefix it was a path, whatever it looks like.
        ("secret/flow", "secret/words.json", ("flow", "words.json")),
        (None, "gpt2", (None, "gpt2")),
    ):
        places = distilled(teacher, f"{tmp_path}/secret/text.txt", tokenizer)
        shared.experiment = replace(shared.experiment, method=places.method, data=places.data)
        shared.push("hf:me/map")
        files = hub.repositories["me/map"]["main"]
        stored = json.loads(files["experiment.json"])
        assert (stored["method"]["teacher"], stored["data"]["tokenizer"]) == wanted
        assert stored["data"]["path"] == "text.txt"
        assert b"secret" not in b"".join(files.values())
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_a_mistyped_teacher_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from flowlm.cli import main\n"
        "assert main(['train', 'text-flow-map', '--method.teacher', 'runs/flwo']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    source = str(Path(flowlm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("flowlm: runs/flwo does not exist here")


def test_a_judge_of_the_hub_by_its_short_name(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    hub.put("openai-community/gpt2-large", write(tmp_path / "there"))
    found = find_judge("gpt2-large")
    assert (found.name, found.foreign) == ("openai-community/gpt2-large", True)
    assert (
        found.place.joinpath("model.safetensors").read_bytes()
        == (tmp_path / "there" / "model.safetensors").read_bytes()
    )
    Path("gpt2-large").mkdir()  # a path comes first
    with pytest.raises(Refusal, match="gpt2-large"):
        find_judge("gpt2-large")


def test_no_weights_are_fetched_that_nothing_can_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    hub.put("me/small", write(tmp_path / "there"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Refusal, match=r"flowlm\[judge\]"):
        find_judge("hf:me/small")
    assert not [asked for asked in hub.asked if "safetensors" in asked]


def test_a_flowlm_judge_of_the_hub(hub: Hub, small: LanguageModel, tmp_path: Path) -> None:
    small.save(tmp_path / "own")
    hub.put("me/own", tmp_path / "own")
    found = find_judge("me/own@main")
    assert (found.name, found.foreign) == ("me/own@main", False)
    assert flowlm.load(found.place).fingerprint == small.fingerprint
