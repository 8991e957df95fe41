"""A training step never reads from the device.

It runs on torch's meta device, whose tensors have shapes but no numbers: whatever needs a number on
the host, to branch on it, to size a tensor by it or to print it, raises there. It is run at the
published sizes, which cost nothing here, so that the head works in tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowlm import chunked, core, nn
from flowlm.core import Streams
from flowlm.core.space import OneHot, Projected
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.by_length import ByLength
from flowlm.methods.continuous import Continuous
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, ScoreEntropy, SEDDUniform
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.methods.uniform_state import UniformDiffusion, UniformState
from writing import INPUTS

META = torch.device("meta")
TEXTS, LENGTH, VOCAB = 16, 128, 50_258

ENCODERS = ("projected", "linear", "posterior", "bayes")
RULES = {
    "lagrangian": Lagrangian(),
    "eulerian": Eulerian(),
    "teacher leg": TeacherLeg(),
    "by length": ByLength(),
}
CASES: dict[str, Method] = {
    **{f"flow, {e}": Flow(input=INPUTS[e]) for e in ENCODERS},
    **{f"map of itself, {e}": FlowMap(input=INPUTS[e]) for e in ENCODERS},
    **{f"map, {e}": FlowMap(input=INPUTS[e], teacher="runs/teacher") for e in ENCODERS},
    **{f"map, {kind}": FlowMap(teacher="runs/teacher", rule=rule) for kind, rule in RULES.items()},
    "residual": ResidualMap(teacher="runs/teacher"),
    "student": ResidualStudent(teacher="runs/teacher"),
    "flow, uniform clock": Flow(clock="uniform"),
    "masked": Masked(),
    "sdtt": SDTT(teacher="runs/teacher"),
    "uniform": UniformState(),
    "curriculum": Curriculum(),
    "duo": Duo(teacher="runs/teacher"),
    "dcd": DCD(teacher="runs/teacher"),
    "sedd": SEDD(),
    "sedd, uniform": SEDDUniform(),
    "di4c": Di4C(teacher="runs/teacher", latents=2),
    "autoregressive": Autoregressive(),
    "gumbel": GumbelMap(teacher="runs/teacher"),
}


class Elsewhere(torch.Generator):
    """A generator of the device."""

    @property
    def device(self) -> torch.device:
        return META


class Copies(TorchDispatchMode):
    """Notes copies between host and device, and which operations there were."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[str] = []
        self.waiting: list[str] = []
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.seen.add(func.overloadpacket.__name__)
        given, made = places((args, kwargs)), places(out)
        if "meta" in given and "cpu" in made:
            self.back.append(str(func))
        if given == {"cpu"} and "meta" in made and not kwargs.get("non_blocking"):
            self.waiting.append(str(func))
        return out


def places(tree: object) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def streams() -> Streams:
    return Streams([Elsewhere() for _ in range(TEXTS)], tuple(range(TEXTS)), TEXTS)


def step(method: Method) -> Copies:
    """One loss and its backward pass."""
    # The clock's table is made once per device, on the host, and copied there.
    clock = core.Decoding(VOCAB)
    clock.tau(torch.zeros(1, 1, device=META)), clock.t(torch.zeros(1, 1, device=META))
    evidence = isinstance(method, Continuous) and method.input == BayesInput()
    size, teacher = nn.Size(blocks=2, output_cap=None if evidence else 30.0), None
    with META:
        if isinstance(method, FlowMap) and method.teacher is not None:
            teacher = Flow(input=method.input).network(size, VOCAB, LENGTH).eval()
        if isinstance(method, ResidualMap):
            teacher = Flow().network(size, VOCAB, LENGTH).eval()
        if isinstance(method, ResidualStudent):
            flow = Flow().network(size, VOCAB, LENGTH)
            teacher = ResidualMap(teacher="runs/flow").network(size, VOCAB, LENGTH, flow).eval()
        if isinstance(method, GumbelMap):
            teacher = Autoregressive().network(size, VOCAB, LENGTH).eval()
        if isinstance(method, Duo | DCD | SDTT | Di4C):
            teacher = method.like_teacher().network(size, VOCAB, LENGTH).eval()
        network = method.network(size, VOCAB, LENGTH, teacher)
        tokens = torch.zeros(TEXTS, LENGTH, dtype=torch.long)
        batch = core.Batch(tokens, torch.ones(TEXTS, LENGTH))
    rng = streams()
    with Copies() as copies:
        loss = method.loss(network, batch, rng, teacher)
        ((loss.value * loss.weight).sum() / loss.weight.sum()).backward()
    assert loss.value.device == META
    learnt = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.device == META for p in learnt)
    # Reductions of whole rows go by strips.
    rows = UniformDiffusion | SDTT | Di4C | ScoreEntropy | ResidualMap | ResidualStudent
    if not isinstance(method, rows):
        assert "index_add_" in copies.seen or "maximum" in copies.seen, "the head worked in tiles"
    return copies


@pytest.mark.parametrize("name", CASES)
def test_a_step_reads_nothing_from_the_device_and_waits_for_nothing(name: str) -> None:
    """A copy to the device that is not marked `non_blocking` waits for all work queued there."""
    copies = step(CASES[name])
    assert copies.back == []
    assert copies.waiting == []


def test_spaces_and_targets_read_nothing_either() -> None:
    table = torch.empty(VOCAB, 32, device=META, requires_grad=True)
    tokens = torch.zeros(TEXTS, LENGTH, dtype=torch.long, device=META)
    with Copies() as copies:
        for space in (OneHot(VOCAB), Projected(table)):
            x = core.interpolate(
                space.noise(streams(), LENGTH), space.clean(tokens), streams().stratified()
            )
            head = chunked.HeadPrediction(
                x[..., :8], torch.empty(VOCAB, 8, device=META), torch.empty(VOCAB, device=META)
            )
            head.cross_entropy(head.probs())
            space.mean(head)
        s, t = Semigroup().times(streams())
        core.semigroup_weight(s, (s + t) / 2, t)
    assert copies.back == []


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "a branch": lambda x: bool((x > 0).any()),
    "cpu": lambda x: x.cpu(),
    "to, not waiting": lambda x: x.to("cpu", non_blocking=True),
    "copy_": lambda x: torch.empty(3).copy_(x),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "a mask as index": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "print": lambda x: f"{float(x[0]):.2f}",
}


@pytest.mark.parametrize("name", READS)
def test_reading_from_this_device_fails(name: str) -> None:
    """The proof proves something: each way to read a number raises here."""
    x = torch.empty(3, device=META)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        READS[name](x)


def test_a_waiting_copy_is_seen() -> None:
    with Copies() as copies:
        torch.ones(3).to(META)
        torch.ones(3).to(META, non_blocking=True)
    assert len(copies.waiting) == 1
