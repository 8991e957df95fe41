"""Recipes build what they say, and the demo's four models cost the same to train."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowlm.cli.parse import train_options
from flowlm.core import Batch, Loss, Streams
from flowlm.experiment import Experiment, Text
from flowlm.machine.accelerators import accelerator
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.nn import DiT, Size
from flowlm.recipes import RECIPES
from flowlm.run.forecast import work
from flowlm.run.vocabulary import vocabulary
from flowlm.tasks.drawn import Drawn
from flowlm.tasks.generated import Generated
from flowlm.tasks.task import Task
from flowlm.train import State, train
from writing import INPUTS, film

VOCAB = 40
TASKS = ("demo", "queens", "sudoku", "addition")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_name_and_its_command(name: str) -> None:
    experiment = RECIPES[name]()
    assert experiment == RECIPES[name]()
    assert experiment.name == name
    said = inspect.getdoc(RECIPES[name]) or ""
    assert said.splitlines()[0].endswith(".")
    commands = re.findall(r"flowlm train (.*)", said)
    for command in commands:
        recipe, *words = command.split()
        assert recipe == name
        if "--method.teacher" not in words:
            # A dry run, because the teacher of a published recipe need not be there yet.
            assert train_options([recipe, *words, "--dry-run"]).experiment.name == name
    assert commands or isinstance(experiment.data, Generated)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_its_number_of_steps(name: str) -> None:
    experiment = RECIPES[name]()
    stated = re.findall(r"(\d+) steps", inspect.getdoc(RECIPES[name]) or "")
    assert all(int(steps) == experiment.train.steps for steps in stated)


def network(experiment: Experiment) -> tuple[DiT, int, int]:
    """The network of a recipe, its vocabulary and length."""
    if isinstance(experiment.data, Text):
        vocab, length = VOCAB, experiment.data.length
    else:
        vocab, length = experiment.data.vocab, experiment.data.length
    return experiment.method.network(experiment.size, vocab, length), vocab, length


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_a_network_that_learns(name: str) -> None:
    experiment = RECIPES[name]()
    if experiment.size.width > 192:  # as published: two narrow blocks of it are enough here
        size = replace(experiment.size, blocks=2, width=48)
        experiment = replace(experiment, size=size, data=replace(experiment.data, length=16))
    plan = replace(experiment.train, batch=2)
    model, vocab, length = network(experiment)
    guide = None
    if isinstance(experiment.method, GumbelMap | ResidualMap | ResidualStudent | DCD | SDTT | Di4C):
        # A flow of zeros is straight, and a network of zeros says the same of every token.
        guide = experiment.method.like_teacher().network(experiment.size, vocab, length).eval()
        for parameter in guide.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model = experiment.method.network(experiment.size, vocab, length, guide)
    state = State(model, plan)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    batch = Batch(torch.randint(vocab, (2, length)), torch.ones(2, length))

    def loss(network: DiT, batch: Batch, rng: Streams) -> Loss:
        return experiment.method.loss(network, batch, rng, guide)

    step = next(train(state, loss, lambda step: batch, plan))
    state.check(plan)
    assert step.tokens == 2 * length
    # A head that is zero at the start gives every token the same chance.
    assert float(step.loss) < 2.5 * torch.tensor(vocab).log()
    moved = [
        key for key, weight in model.named_parameters() if not torch.equal(before[key], weight)
    ]
    assert {"head.weight", "head.bias"} <= set(moved)
    model.eval()
    written = film(
        experiment.method, model, torch.full((1, 8), -1), 1, Streams.of(0, count=1),
        experiment.sampler,
    )  # fmt: skip
    assert ((written[-1] >= 0) & (written[-1] < vocab)).all()


def test_the_recipes_of_text_share_one_trunk_of_three_million() -> None:
    trunks = []
    for name in ("text-flow", "text-flow-map", "text-masked", "text-autoregressive"):
        model, _, _ = network(RECIPES[name]())
        trunk = {key: weight.shape for key, weight in model.blocks.named_parameters()}
        assert sum(shape.numel() for shape in trunk.values()) == pytest.approx(3e6, rel=0.1)
        trunks.append((trunk, RECIPES[name]().train))
    assert all(trunk == trunks[0] for trunk in trunks)


CORPORA = {
    "lm1b": ("data/lm1b", 128, 30_522),
    "owt": ("data/openwebtext", 1024, 50_258),
    "text8": ("data/text8", 256, 29),
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_models_of_a_corpus_differ_in_method_alone(corpus: str) -> None:
    path, length, vocab = CORPORA[corpus]
    recipes = {n: r() for n, r in RECIPES.items() if n.startswith(f"{corpus}-")}
    assert len(recipes) == (7 if corpus == "text8" else 17)
    for name, experiment in recipes.items():
        assert experiment.data == Text(path=path, length=length, vocab=vocab)
        # With the bayes encoder, what goes with it; everything else as published.
        ours = replace(experiment.size, reach=2, output_cap=None) if "bayes" in name else Size()
        assert experiment.size == ours
        assert replace(ours, reach=0, output_cap=30.0) == Size()
        small = ("owt-flow-map", "owt-gumbel", "owt-residual")
        a_round = name.endswith(("-dcd", "-sdtt"))
        batch = 128 if name.startswith(small) or a_round else 512
        batch = 16 if name.endswith("-di4c") else batch
        own = {"-duo": 500_000, "-sedd": 1_300_000}
        own |= dict.fromkeys(("-dcd", "-sdtt", "-di4c"), 10_000)
        steps = next((own[part] for part in own if part in name), 1_000_000)
        assert (experiment.train.steps, experiment.train.batch) == (steps, batch)
    encoders = {n: e.method.input for n, e in recipes.items() if "flow" in n}
    assert all(encoders[n] == INPUTS["bayes" if "bayes" in n else "projected"] for n in encoders)
    for kind in ("", "-bayes"):
        # A map is distilled from where its teacher's recipe goes, and must be alike.
        teacher = recipes[f"{corpus}-flow{kind}"]
        student = recipes[f"{corpus}-flow-map{kind}"].method
        assert student.teacher == f"runs/{teacher.name}"
        assert (student.input, student.clock) == (teacher.method.input, teacher.method.clock)


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("lm1b-flow", "owt-flow-map")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in RECIPES
        if name.startswith(tuple(CORPORA))
    ],
)
def test_the_hours_of_a_recipe_are_those_of_its_dry_run(name: str) -> None:
    experiment = RECIPES[name]()
    vocab, _ = vocabulary(experiment)
    counted = work(experiment.method, experiment.size, vocab, experiment.data.length)
    plan = experiment.train
    speed = 8 * accelerator("h200", plan, experiment.size.width).speed
    step = plan.batch * experiment.data.length * counted.flops_per_token + counted.flops_per_step
    (said,) = re.findall(r"8 H100 or H200: ([\d.]+) hours", inspect.getdoc(RECIPES[name]) or "")
    assert float(said) == pytest.approx(plan.steps * step / speed / 3600, rel=0.005)


# --- equal compute ------------------------------------------------------------------------------


def operations(name: str, teacher: DiT | None = None) -> tuple[float, DiT]:
    """Floating-point operations of a whole training of a task's recipe, and its network."""
    experiment = RECIPES[name]()
    task, method, plan = experiment.data, experiment.method, experiment.train
    few = replace(plan, batch=32)  # operations of a step are those of its texts
    assert isinstance(task, Task)
    model = method.network(experiment.size, task.vocab, task.length, teacher)
    state = State(model, few)

    def loss(network: DiT, batch: Batch, rng: Streams) -> Loss:
        return method.loss(network, batch, rng, teacher)

    loop = train(state, loss, Drawn(task, few.batch, plan.seed), few)
    next(loop)  # what is built once, in the first step, is not counted
    # Attention as plain matrix products: they are counted on every machine, masked or not.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        next(loop)
    return counter.get_total_flops() * plan.steps * plan.batch / few.batch, model


def texts(name: str) -> int:
    """Texts that a training reads."""
    plan = RECIPES[name]().train
    return plan.steps * plan.batch


def test_the_counter_counts() -> None:
    size = RECIPES["demo-masked"]().size
    total, model = operations("demo-masked")
    plan = RECIPES["demo-masked"]().train
    tokens = plan.batch * 18 * plan.steps
    weights = [p for name, p in model.named_parameters() if p.ndim == 2 and "table" not in name]
    shared = sum(p.numel() for name, p in model.named_parameters() if "modulation.weight" in name)
    products = sum(p.numel() for p in weights) - shared
    attention = 2 * 18 * size.width * size.blocks
    # Two operations a weight and a token forward, twice that backward.
    assert total == pytest.approx(6 * tokens * (products + attention), rel=0.03)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_compares_models_of_equal_compute(task: str) -> None:
    flow, teacher = operations(f"{task}-flow")
    flow_map, _ = operations(f"{task}-flow-map", teacher.requires_grad_(False).eval())
    both = flow + flow_map
    rivals = ["demo-uniform", "demo-sedd", "demo-sedd-uniform"] if task == "demo" else []
    for name in (f"{task}-masked", f"{task}-autoregressive", *rivals):
        other, _ = operations(name)
        assert both == pytest.approx(other, rel=0.05), (
            f"flow and flow map take {both:.4g} operations, {name} {other:.4g}: {both / other:.3f}"
        )


def test_both_stages_of_version_one_cost_as_much_as_the_map_of_the_demo() -> None:
    def cost(name: str) -> float:
        experiment = RECIPES[name]()
        task, plan = experiment.data, experiment.train
        token = work(experiment.method, experiment.size, task.vocab, task.length).flops_per_token
        return token * plan.steps * plan.batch

    method = RECIPES["demo-flow-map"]().method
    taught = replace(RECIPES["demo-flow-map"](), method=method.with_teacher("runs/demo-flow"))
    size, task, plan = taught.size, taught.data, taught.train
    of_map = work(taught.method, size, task.vocab, task.length).flops_per_token
    stages = cost("demo-residual") + cost("demo-residual-map")
    assert stages == pytest.approx(of_map * plan.steps * plan.batch, rel=0.03)


def test_the_demo_s_duo_costs_with_its_stages_what_a_baseline_costs() -> None:
    curriculum, teacher = operations("demo-duo-curriculum")
    duo, teacher = operations("demo-duo", teacher.requires_grad_(False).eval())
    dcd, _ = operations("demo-dcd", teacher.requires_grad_(False).eval())
    assert curriculum + duo + dcd == pytest.approx(operations("demo-masked")[0], rel=0.05)


def test_the_demo_s_sdtt_costs_with_its_base_what_a_baseline_costs() -> None:
    base, teacher = operations("demo-sdtt-base")
    sdtt, _ = operations("demo-sdtt", teacher.requires_grad_(False).eval())
    assert base + sdtt == pytest.approx(operations("demo-masked")[0], rel=0.02)
    # Five passes of a text for three.
    read = texts("demo-sdtt") / texts("demo-sdtt-base")
    assert sdtt / base / read == pytest.approx(5 / 3, rel=0.05)


def test_the_demo_s_mixture_costs_with_its_base_what_a_baseline_costs() -> None:
    base, teacher = operations("demo-di4c-base")
    di4c, _ = operations("demo-di4c", teacher.requires_grad_(False).eval())
    assert base + di4c == pytest.approx(operations("demo-masked")[0], rel=0.02)
    # With 4 latents 17 passes of a text for three, each of one token more.
    read = texts("demo-di4c") / texts("demo-di4c-base")
    assert di4c / base / read == pytest.approx(17 / 3 * 19 / 18, rel=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_compares_models_of_equal_size(task: str) -> None:
    experiments = [RECIPES[name]() for name in RECIPES if name.startswith(f"{task}-")]
    assert len(experiments) == (17 if task == "demo" else 4)
    assert len({experiment.size for experiment in experiments}) == 1
    plans = [experiment.train for experiment in experiments]
    assert {plan.seed for plan in plans} == {plans[0].seed}
    other = {e.name for e in experiments if e.train.batch != plans[0].batch}
    few = {"demo-flow-map", "demo-sdtt", "demo-dcd"}  # FEW_AT_ONCE says why
    assert other == (few if task == "demo" else set())
