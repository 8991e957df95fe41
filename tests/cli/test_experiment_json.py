"""experiment.json: what is written is read back, and anything else is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, from_json, to_json
from flowlm.experiment.kinds import spelt
from flowlm.experiment.older import FORMAT
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.semigroup import Semigroup
from flowlm.nn.size import Size
from flowlm.recipes import RECIPES
from flowlm.sampling import (
    Bridge,
    Draft,
    Euler,
    Heun,
    Jacobi,
    Jumps,
    LeftToRight,
    Refine,
    ResidualJumps,
    Unmask,
)
from flowlm.tasks.generated import Generated
from flowlm.train.plan import Plan

FILE = Path("experiment.json")
NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
COUNTS = st.integers(1, 10**9)
SHARES = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(1e-300, 1e300)
CAPS = st.floats(0.001, 1000)

LATER = (
    "-sdtt",
    "-di4c",
    "-uniform",
    "-curriculum",
    "-duo",
    "-dcd",
    "-sedd",
    "-sedd-uniform",
    "-gumbel",
    "-residual",
    "-residual-map",
)
"""Ends of the names of recipes whose methods are younger than the first format."""

METHODS = st.one_of(
    st.builds(Flow),
    st.builds(FlowMap, teacher=st.none()),
    st.builds(FlowMap, teacher=NAMES, teacher_temperature=st.floats(0.001, 9)),
    st.builds(Masked),
    st.builds(SDTT, teacher=NAMES, dt=st.floats(0.001, 0.2), substeps=st.integers(2, 4)),
    st.builds(Autoregressive),
    st.builds(GumbelMap, teacher=NAMES, causal=st.booleans()),
    st.builds(ResidualMap, teacher=NAMES, teacher_temperature=st.floats(0.001, 9)),
    st.builds(ResidualStudent, teacher=NAMES),
)
POINTS = st.one_of(
    st.builds(Euler, temperature=st.floats(0.001, 9)),
    st.builds(Heun),
    st.builds(Jumps, gamma=st.none() | SHARES, cools=st.sampled_from(["context", "row"])),
    st.builds(Refine, certainty=st.floats(0.01, 1)),
    st.builds(Bridge, endpoint=st.sampled_from(["token", "mean"]), top_p=st.floats(0.01, 1)),
)
UNMASK = st.builds(
    Unmask,
    temperature=SHARES,
    top_p=st.floats(0.01, 1),
    order=st.sampled_from(["random", "confidence", "entropy"]),
    grid=st.sampled_from(["even", "cosine"]),
)
DISCRETE = {
    Masked: UNMASK,
    SDTT: UNMASK,
    Autoregressive: st.builds(LeftToRight, temperature=SHARES, top_p=st.floats(0.01, 1))
    | st.builds(Jacobi, temperature=SHARES),
    GumbelMap: st.builds(Draft),
    ResidualMap: st.builds(ResidualJumps),
    ResidualStudent: st.builds(Jumps, gamma=SHARES),
}
DATA = st.builds(Generated) | st.builds(
    Text,
    path=st.none() | NAMES,
    length=st.integers(2, 10**6),
    tokenizer=st.none() | NAMES,
    vocab=st.integers(300, 10**6),
    valid=st.floats(0.001, 0.999),
)
SIZES = st.builds(
    Size,
    blocks=st.integers(1, 99),
    width=st.integers(1, 99).map(lambda k: 24 * k),
    heads=st.sampled_from([1, 2, 3, 4, 6, 12]),
    condition=st.integers(1, 2**16),
    dropout=SHARES,
    attention_cap=st.none() | CAPS,
    output_cap=st.none() | CAPS,
)
PLANS = st.builds(
    Plan,
    steps=COUNTS,
    batch=st.integers(1, 10**6).map(lambda n: 2 * n),
    lr=POSITIVE,
    warmup=st.integers(0, 10**9),
    decay=SHARES,
    beta2=SHARES,
    weight_decay=SHARES,
    clip=POSITIVE,
    ema=SHARES,
    seed=st.integers(0, 2**32 - 1),
    log_every=COUNTS,
    validate_every=COUNTS,
    save_every=COUNTS,
    keep=COUNTS,
    threads=st.integers(0, 99),
)
EXPERIMENTS = METHODS.flatmap(
    lambda method: st.builds(
        Experiment, NAMES, st.just(method), DISCRETE.get(type(method), POINTS), DATA, SIZES, PLANS
    )
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_comes_back(recipe: str) -> None:
    experiment = RECIPES[recipe]()
    assert from_json(to_json(experiment), FILE) == experiment


@settings(deadline=None, max_examples=40)
@given(EXPERIMENTS)
def test_every_experiment_comes_back(experiment: Experiment) -> None:
    text = to_json(experiment)
    again = from_json(text, FILE)
    assert again == experiment
    assert type(again.method) is type(experiment.method)
    assert type(again.sampler) is type(experiment.sampler)
    assert type(again.data) is type(experiment.data)
    assert to_json(again) == text


def flow() -> dict[str, Any]:
    return json.loads(to_json(RECIPES["text-flow"]()))


def leaves(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [at]
    return [leaf for key, item in value.items() for leaf in leaves(item, (*at, key))]


def changed(at: tuple[str, ...], change: Callable[[dict, str], Any]) -> str:
    root = inner = flow()
    for key in at[:-1]:
        inner = inner[key]
    change(inner, at[-1])
    return json.dumps(root)


def refusal(text: str) -> str:
    with pytest.raises(Refusal) as caught:
        from_json(text, FILE)
    message = str(caught.value)
    assert str(FILE) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("part", [(), ("method",), ("sampler",), ("data",), ("size",)])
def test_an_unknown_key_is_refused(part: tuple[str, ...]) -> None:
    def add(inner: dict, key: str) -> None:
        inner[key] = 1

    assert "tempo" in refusal(changed((*part, "tempo"), add))


@pytest.mark.parametrize(
    "at", [(part,) for part in ("format", "name", "method", "sampler", "data", "size")]
)
def test_a_missing_part_is_refused(at: tuple[str, ...]) -> None:
    refusal(changed(at, lambda inner, key: inner.pop(key)))


@pytest.mark.parametrize("part", ["method", "sampler", "data"])
@pytest.mark.parametrize("kind", ["FlowMatching", "", None, 3])
def test_an_unknown_or_newer_kind_is_refused(part: str, kind: Any) -> None:
    message = refusal(changed((part, "kind"), lambda inner, key: inner.update({key: kind})))
    assert part in message
    if kind == "FlowMatching":
        assert kind in message, f"what is wrong is the kind, but: {message}"


@pytest.mark.parametrize("part", ["method", "sampler", "data"])
def test_a_missing_kind_is_refused(part: str) -> None:
    refusal(changed((part, "kind"), lambda inner, key: inner.pop(key)))


def accepted(at: tuple[str, ...], wrong: Any) -> bool:
    """Whether a value of another type passes; a refusal has to say where it is."""
    text = changed(at, lambda inner, key: inner.update({key: wrong}))
    try:
        from_json(text, FILE)
    except Refusal:
        place = at[-2] if at[-1] == "kind" else at[-1]
        assert place in refusal(text)
        return False
    return True


WORDS = {"name", "kind", "clock", "path", "documents", "tokenizer", "begin", "end", "init"} | {
    "positions", "device", "precision"
}  # fmt: skip
FRACTIONS = {"valid", "dropout", "attention_cap", "output_cap", "lr", "decay", "beta2"} | {
    "weight_decay", "clip", "ema", "temperature"
}  # fmt: skip
SWITCHES = {"compile", "recompute", "lower"}


@pytest.mark.parametrize("wrong", [[], {}, [1], {"a": 1}], ids=repr)
def test_a_list_or_table_for_a_value_is_refused(wrong: Any) -> None:
    assert [at for at in leaves(flow()) if accepted(at, wrong)] == []


@pytest.mark.parametrize("wrong", ["4", "many", True], ids=repr)
def test_a_word_for_a_number_is_refused(wrong: Any) -> None:
    numbers = [at for at in leaves(flow()) if at[-1] not in WORDS | SWITCHES]
    assert len(numbers) > 20
    assert [at for at in numbers if accepted(at, wrong)] == []


@pytest.mark.parametrize("wrong", ["true", "", 1, 0, 1.0], ids=repr)
def test_a_word_or_a_number_for_a_switch_is_refused(wrong: Any) -> None:
    switches = [at for at in leaves(flow()) if at[-1] in SWITCHES]
    assert len(switches) == len(SWITCHES)
    assert [at for at in switches if accepted(at, wrong)] == []
    assert all(accepted(at, True) for at in switches)


def test_a_fraction_for_a_count_is_refused() -> None:
    counts = [at for at in leaves(flow()) if at[-1] not in WORDS | FRACTIONS | SWITCHES]
    assert len(counts) > 10
    assert [at for at in counts if accepted(at, 4.5)] == []


@pytest.mark.parametrize("wrong", [5, 0.5, True, False])
def test_a_number_for_a_word_is_refused(wrong: Any) -> None:
    words = [at for at in leaves(flow()) if at[-1] in WORDS]
    assert [at for at in words if accepted(at, wrong)] == []


def test_a_whole_number_does_for_a_fraction() -> None:
    text = changed(("train", "lr"), lambda inner, key: inner.update({key: 1}))
    assert from_json(text, FILE).train.lr == 1


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (("train", "steps"), 0, "--train.steps"),
        (("size", "heads"), 5, "--size.heads"),
        (("data", "length"), 1, "--data.length"),
    ],
)
def test_an_impossible_value_is_refused_with_its_reason(
    at: tuple[str, ...], value: int, reason: str
) -> None:
    assert reason in refusal(changed(at, lambda inner, key: inner.update({key: value})))


def as_then(recipe: str) -> Experiment:
    """A recipe as it was then: flows had solvers, gamma was a number, and maps had one rule."""
    found = RECIPES[recipe]()
    if isinstance(found.method, FlowMap):
        found = replace(found, method=replace(found.method, rule=Semigroup()))
    match found.sampler:
        case Jumps(gamma=gamma) if found.method.times == 2:
            return replace(found, sampler=Jumps(gamma=gamma or 0.0))
        case Jumps():
            return replace(found, sampler=Euler())
        case _:
            return found


def first_format(recipe: str) -> dict[str, Any]:
    """What the first format, which had no number, said of a recipe."""
    stated = json.loads(to_json(as_then(recipe)))
    sampler, method = stated.pop("sampler"), stated["method"]
    del stated["format"]
    method.pop("prompts", None)
    kind = sampler.pop("kind")
    if kind in ("Euler", "Heun"):
        sampler["solver"] = kind.lower()
        del sampler["cools"]
    if method["kind"] == "FlowMap":
        del method["rule"], method["diagonal"], sampler["latest"], sampler["cools"]
        sampler["temperature"] = method.pop("teacher_temperature")
    if kind == "Unmask":
        del sampler["order"], sampler["grid"]
    if "input" in method:
        method["encoder"] = spelt(method.pop("input")["kind"])
    method.update(sampler)
    return stated


@pytest.mark.parametrize(
    "recipe",
    [name for name in RECIPES if not name.endswith(LATER)],
)
def test_the_first_format_is_read(recipe: str) -> None:
    assert from_json(json.dumps(first_format(recipe)), FILE) == as_then(recipe)


def test_in_the_first_format_temperatures_were_those_of_the_teacher() -> None:
    stated = first_format("lm1b-flow-map")
    stated["method"] |= {"temperature": 0.6, "gamma": 0.5}
    wanted = RECIPES["lm1b-flow-map"]()
    method = replace(wanted.method, teacher_temperature=0.6)
    assert from_json(json.dumps(stated), FILE) == replace(wanted, method=method, sampler=Jumps(0.5))


@pytest.mark.parametrize("cap", [30.0, 20, None])
def test_a_cap_that_was_never_applied_is_dropped(cap: float | None) -> None:
    """The bayes encoder has none, and models were stored with the one they were not built with."""
    stated = first_format("text-flow")
    assert stated["method"]["encoder"] == "bayes"
    stated["size"]["output_cap"] = cap
    assert from_json(json.dumps(stated), FILE) == as_then("text-flow")
    stated["method"]["encoder"] = "posterior"
    assert from_json(json.dumps(stated), FILE).size.output_cap == cap


@pytest.mark.parametrize("number", [FORMAT + 1, 0, -1, 2.5, "2", None, True, [2]])
def test_another_format_is_refused_by_its_number(number: Any) -> None:
    """Whatever else it says: a later version may say everything in another way."""
    text = json.dumps({"format": number, "everything": "else"})
    assert f"has the format {number!r}" in refusal(text)


@pytest.mark.parametrize("text", ["", "{", '{"name": ', "nonsense", "[1, 2", '{"name": "\\x"}'])
def test_broken_json_is_refused(text: str) -> None:
    assert "line 1" in refusal(text)


@pytest.mark.parametrize("text", ["null", "[]", "{}", "3", '"flow"', "[[]]", "NaN"])
def test_json_of_something_else_is_refused(text: str) -> None:
    refusal(text)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_nothing_but_a_refusal_comes_of_anything_else(data: st.DataObject) -> None:
    anything = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*flow(), "kind", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
    at = data.draw(st.sampled_from([*leaves(flow()), ("method",), ("data",), ("size",)]))
    text = changed(at, lambda inner, key: inner.update({key: data.draw(anything)}))
    try:
        experiment = from_json(text, FILE)
    except Refusal:
        refusal(text)
    else:
        assert from_json(to_json(experiment), FILE) == experiment


@pytest.mark.parametrize("command", ["sample", "evaluate", "train --resume", "train map"])
def test_commands_refuse_a_run_whose_experiment_is_broken(
    command: str, flowlm: Callable, flow_run: Path, tmp_path: Path
) -> None:
    words = {
        "sample": ["sample", flow_run],
        "evaluate": ["evaluate", flow_run],
        "train --resume": ["train", "--resume", flow_run],
        "train map": ["train", "text-flow-map", "--method.teacher", flow_run, "--out", "x"],
    }[command]
    file = flow_run / "experiment.json"
    whole = file.read_bytes()
    other = whole.replace(b'"clock"', b'"tempo"')
    for broken in (b"", whole[:-10], b"\xff\xfe" + whole, other, b"{}", b"null"):
        file.write_bytes(broken)
        before = sorted(tmp_path.rglob("*"))
        flowlm(*words).refusal(file)
        assert sorted(tmp_path.rglob("*")) == before
    file.unlink()
    flowlm(*words).refusal(flow_run, "experiment.json")
    file.mkdir()
    flowlm(*words).refusal(file)


def test_a_copy_with_changes_is_checked_again() -> None:
    wanted = RECIPES["demo-flow"]()
    bayes = replace(wanted.method, input=BayesInput())
    with pytest.raises(Refusal, match="no bound"):
        replace(wanted, method=bayes, size=replace(wanted.size, output_cap=30.0))
