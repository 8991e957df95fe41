"""Files that are not what they should be: one sentence, nothing executed, nothing written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from safetensors.torch import load_file, save_file
from synthetic import Shape

import flowlm
from flowlm.cli import main
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal

SHAPE = Shape(two_times=True)


def refused(name: Path, *named: object) -> str:
    """The one sentence with which a model is refused, by the library and by the command line."""
    with pytest.raises(Refusal) as caught:
        flowlm.load(name)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not re.search(r"[.!?] +[A-Z]", sentence), f"more than one sentence: {sentence}"
    for part in named:
        assert str(part) in sentence, f"{part} is not in: {sentence}"
    return sentence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthetic.write_folder(tmp_path / "model", SHAPE)
    return tmp_path / "model"


@pytest.fixture
def content() -> dict:
    return synthetic.checkpoint(SHAPE)[0]


@pytest.fixture
def ckpt(tmp_path: Path, content: dict) -> Path:
    synthetic.write_ckpt(tmp_path / "model.ckpt", content, omegaconf=True)
    return tmp_path / "model.ckpt"


# --- tensors ------------------------------------------------------------------------------------

NAMES = ("blocks.1.norm2.weight", "sigma_map_prime.mlp.2.bias", "vocab_embed.embedding",
         "output_layer.linear.weight", "rotary_emb.inv_freq", "sigma_map.mlp.2.weight")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_named(name: str, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    refused(folder, name)


def test_every_fault_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["blocks.0.attn_out.weight"]
    weights["blocks.0.attn_out.bias"] = torch.zeros(16)
    weights["blocks.2.norm1.weight"] = torch.ones(16)
    weights["blocks.1.mlp.0.bias"] = torch.zeros(63)
    weights["output_layer.linear.bias"] = torch.zeros(23, dtype=torch.int64)
    save_file(weights, folder / "model.safetensors")
    refused(
        folder, "lacks blocks.0.attn_out.weight", "blocks.0.attn_out.bias", "blocks.2.norm1.weight",
        "blocks.1.mlp.0.bias has shape (63,) instead of (64,)", "output_layer.linear.bias holds",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_tensor_is_named(name: str, folder: Path, ckpt: Path, content: dict) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["renamed." + name] = weights.pop(name)
    save_file(weights, folder / "model.safetensors")
    refused(folder, name)
    state = content["state_dict"]
    content["state_dict"] = OrderedDict(
        (k.replace(name, "renamed." + name), t) for k, t in state.items()
    )
    synthetic.write_ckpt(ckpt, content)
    refused(ckpt, name)


def test_another_rotary_frequency_is_another_network(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["rotary_emb.inv_freq"][1] *= 1.01
    save_file(weights, folder / "model.safetensors")
    refused(folder, "rotary_emb.inv_freq")


# --- the averaged weights -----------------------------------------------------------------------


def fewer(content: dict) -> object:
    content["ema"]["shadow_params"].pop()
    return "averaged weights for"


def more(content: dict) -> object:
    content["ema"]["shadow_params"].append(torch.zeros(3))
    return "averaged weights for"


def misshapen(content: dict) -> object:
    content["ema"]["shadow_params"][0] = torch.zeros(22, 16)
    return "vocab_embed.embedding ((23, 16) and (22, 16))"


def swapped(content: dict) -> object:
    shadow = content["ema"]["shadow_params"]
    shadow[0], shadow[1] = shadow[1], shadow[0]
    return "sigma_map.mlp.0.weight"


def no_tensor(content: dict) -> object:
    content["ema"]["shadow_params"][2] = "weights"
    return "sigma_map.mlp.0.bias"


def absent(content: dict) -> object:
    del content["ema"]
    return "ema.shadow_params"


def stateless(content: dict) -> object:
    del content["state_dict"]
    return "state_dict"


def strange_state(content: dict) -> object:
    content["state_dict"]["backbone.extra"] = "text"
    return "state_dict"


def sorted_names(content: dict) -> object:
    # Ten blocks and more, sorted as words: every shape fits, and the blocks are in other places.
    shape = Shape(blocks=12)
    content.update(synthetic.checkpoint(shape)[0])
    state = content["state_dict"]
    blocks = sorted((k for k in state if ".blocks." in k and "teacher" not in k), key=str)
    inner = {k: (k.split(".")[2], list(state).index(k)) for k in blocks}
    blocks.sort(key=lambda k: (inner[k][0], inner[k][1]))
    ends = [k for k in state if k not in blocks]
    first = [k for k in ends if "output_layer" not in k]
    last = [k for k in ends if "output_layer" in k]
    content["state_dict"] = OrderedDict((k, state[k]) for k in [*first, *blocks, *last])
    return "order"


def stranger(content: dict) -> object:
    content["state_dict"]["backbone.blocks_extra.weight"] = torch.zeros(2)
    content["ema"]["shadow_params"].append(torch.zeros(2))
    return "backbone.blocks_extra.weight".removeprefix("backbone.")


def outsider(content: dict) -> object:
    content["state_dict"]["noise.weight"] = torch.zeros(2)
    return "noise.weight"


def twice(content: dict) -> object:
    content["state_dict"]["backbone._orig_mod.blocks.0.norm1.weight"] = torch.zeros(16)
    return "backbone._orig_mod.blocks.0.norm1.weight"


def no_config(content: dict) -> object:
    content["hyper_parameters"] = {}
    return "hidden_size"


FAULTS = [fewer, more, misshapen, swapped, no_tensor, absent, stateless, strange_state,
          sorted_names, stranger, outsider, twice, no_config]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_without_names_are_matched_or_refused(
    fault: Callable[[dict], object], content: dict, tmp_path: Path
) -> None:
    named = fault(content)
    synthetic.write_ckpt(tmp_path / "model.ckpt", content, omegaconf=fault is not no_config)
    refused(tmp_path / "model.ckpt", tmp_path / "model.ckpt", named)


# --- the configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 32), ("hidden_size", None), ("hidden_size", "16"), ("cond_dim", 7),
        ("n_heads", 4), ("n_heads", 0), ("n_heads", -2), ("n_heads", 10**9), ("length", None),
        ("length", 1.5), ("length", True), ("n_blocks", 10**9), ("n_blocks", 0),
    ],
)  # fmt: skip
def test_sizes_that_the_tensors_contradict_are_refused(
    key: str, value: Any, folder: Path, content: dict, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["model"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "blocks" if key == "n_blocks" else key)
    content["hyper_parameters"] = {"config": config["config"]}
    synthetic.write_ckpt(tmp_path / "other.ckpt", content, omegaconf=True)
    refused(tmp_path / "other.ckpt", "blocks" if key == "n_blocks" else key)


@pytest.mark.parametrize("blocks", [1, 3])
def test_another_number_of_blocks_names_the_tensors(blocks: int, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["model"]["n_blocks"] = blocks
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, f"blocks.{blocks if blocks == 1 else 2}.attn_qkv.weight")


@pytest.mark.parametrize("vocab", [22, 24, 30_522, None, "23", 23.0])
def test_a_wrong_vocabulary_is_refused(vocab: Any, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = vocab
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "vocab_size")


def test_a_tokenizer_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    Tokenizer.characters(["abc"]).save(tmp_path / "tokenizer.json")
    with pytest.raises(Refusal, match="5 tokens and the model 23"):
        flowlm.load(folder, tokenizer=tmp_path / "tokenizer.json")
    # One short is GPT-2's without its padding, and of GPT-2 only.
    Tokenizer.characters(["abcdefghijklmnopqrst"]).save(folder / "tokenizer.json")
    refused(folder, "22 tokens and the model 23", folder / "tokenizer.json")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"config": {"model": 3}}', "\xff"])
def test_a_broken_configuration_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    refused(folder, folder / "config.json")


# --- containers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_files_are_refused(share: float, folder: Path, ckpt: Path) -> None:
    for file, name in ((ckpt, ckpt), (folder / "model.safetensors", folder)):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        refused(name, file)


def test_swapped_containers_are_refused(folder: Path, ckpt: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    kept = tmp_path / "kept"
    shutil.copy(weights, kept)
    shutil.copy(ckpt, weights)
    refused(folder, weights)
    shutil.copy(kept, ckpt)
    refused(ckpt, ckpt, ".ckpt")
    refused(kept, "folder")
    (folder / "config.json").write_bytes(kept.read_bytes())
    refused(folder, "config.json")


def test_weights_without_their_folder_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, folder / "model.safetensors")


@pytest.mark.parametrize("thing", [torch.zeros(3), [1, 2], {"a": 1}, None, {"state_dict": 3}])
def test_other_things_that_torch_wrote_are_refused(thing: Any, tmp_path: Path) -> None:
    torch.save(thing, tmp_path / "model.ckpt")
    refused(tmp_path / "model.ckpt", tmp_path / "model.ckpt")


def test_any_damage_to_the_pickle_is_refused_or_harmless(ckpt: Path) -> None:
    """Whatever byte is flipped: a model as good as before, or a sentence. Never a traceback."""
    whole = ckpt.read_bytes()
    model = flowlm.load(ckpt).weights
    start = whole.index(b"state_dict")
    places = random.Random(0).sample(range(start, start + 12_000), 150)
    for place in places:
        ckpt.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with contextlib.suppress(Refusal):
            assert flowlm.load(ckpt).weights.keys() == model.keys()


# --- malice -------------------------------------------------------------------------------------


class Payload:
    """What a pickle can do: call anything with anything."""

    def __init__(self, call: Callable, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def payloads(mark: Path) -> dict[str, Payload]:
    return {
        "system": Payload(os.system, f"touch {mark}"),
        "open": Payload(open, str(mark), "w"),
        "exec": Payload(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Payload(eval, f"open({str(mark)!r}, 'w')"),
        "mkdir": Payload(os.mkdir, str(mark)),
        "touch": Payload(Path.touch, mark),
        "getattr": Payload(getattr, "text", "upper"),
        "torch": Payload(torch.save, [1], str(mark)),
    }


KINDS = list(payloads(Path()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["top", "beside", "inside", "key"])
def test_a_pickle_that_would_execute_is_refused(
    kind: str, place: str, content: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark, file = tmp_path / "executed", tmp_path / "model.ckpt"
    payload: Any = payloads(mark)[kind]
    match place:
        case "top":
            content = payload
        case "beside":
            content["callbacks"] = payload
        case "inside":
            content["hyper_parameters"]["tokenizer"] = {"vocab": [payload]}
        case "key":
            content["ema"]["shadow_params"].append((payload,))
    torch.save(content, file)
    sentence = refused(file, file)
    assert "nothing of it was executed" in sentence or "damaged" in sentence
    for command in ("sample", "evaluate"):
        assert main([command, str(file)]) == 2
    assert main(["convert", str(file), str(tmp_path / "out")]) == 2
    assert main(["train", "text-flow-map", "--method.teacher", str(file)]) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
    # The payload is a real one: whoever trusts the file runs it.
    if kind in ("system", "open", "exec", "eval", "mkdir"):
        torch.load(file, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_is_refused(protocol: int, tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "model.ckpt"
    for inside in (True, False):
        if inside:  # as the pickle of a file that torch wrote
            torch.save(Payload(os.mkdir, str(mark)), file, pickle_protocol=protocol)
        else:
            file.write_bytes(pickle.dumps(Payload(os.mkdir, str(mark)), protocol))
        refused(file, file)
        assert not mark.exists()


def test_what_a_pickle_calls_by_an_allowed_name_does_nothing(content: dict, tmp_path: Path) -> None:
    """Allowed names stand for inert things, and they are allowed for this one file only."""
    before = torch.serialization.get_safe_globals()
    content["callbacks"] = {"a": Payload(int, "7"), "b": Payload(list, (1, 2))}
    torch.save(content, tmp_path / "model.ckpt")
    assert flowlm.load(tmp_path / "model.ckpt").length == SHAPE.length
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_a_cyclic_configuration_is_read_without_end(content: dict, tmp_path: Path) -> None:
    model = content["hyper_parameters"]["config"]["model"]
    model["itself"] = model
    torch.save(content, tmp_path / "model.ckpt")
    assert flowlm.load(tmp_path / "model.ckpt").length == SHAPE.length
