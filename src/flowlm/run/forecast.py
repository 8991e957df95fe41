"""Forecast of a run, counted before anything is allocated or computed: `flowlm train --dry-run`.

Networks and a training step are made of tensors that are shapes alone (torch's FakeTensorMode). So
the counts are those of the code that will run, on any machine, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowlm.chunked.tiles import tile_side
from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.machine.accelerators import Accelerator, accelerator
from flowlm.methods.method import Method
from flowlm.nn.dit import DiT
from flowlm.nn.size import Size
from flowlm.run.footprint import Footprint
from flowlm.run.vocabulary import vocabulary
from flowlm.train import State
from flowlm.train.parallel import LossModule

TOKENS = 2**15
"""Up to so many tokens at once a step is counted as it is; beyond, along a line."""


ENTRIES = 2**26
"""The same where a state is made in strips of its one-hot rows: tokens times words. Half of them
are more than a tile of the head on an accelerator: a head that is one tile works in another way."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a device by what they hold, where a step holds most."""

    weights: int
    teacher: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    """What a forward pass keeps for going back: of the texts that are on the device at once."""
    working: int
    """What is in hand at the worst moment besides, tiles of the head's logits among it."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


@dataclass(frozen=True)
class Work:
    """Useful operations: what is computed again for going back (activations, tiles) counts once.

    A multiplication and an addition are two; only matrix products count.
    """

    flops_per_token: float
    """Of a token, forward and back."""
    flops_per_step: float
    """Of an optimizer step, whatever its batch: a table's Gram matrix."""


@dataclass(frozen=True)
class Forecast:
    """Size, memory, operations and hours of a run."""

    parameters: int
    vocab: int
    assumed: bool
    """Whether the vocabulary is what the experiment states, for want of its text."""
    length: int
    tokens: int
    texts: int
    """On a device at once."""
    memory: Memory
    tile: int
    """Bytes of a tile of the head's logits."""
    operations: float
    """Useful ones, of the whole run."""
    device: Accelerator
    """Of which there may be several."""
    hours: float


def forecast(experiment: Experiment, name: str, devices: int) -> Forecast:
    """Count a run on `devices` accelerators: of a known name, of this machine, or of a speed."""
    plan, length = experiment.train, experiment.data.length
    device = accelerator(name, plan, experiment.size.width)
    if devices < 1 or plan.batch % devices:
        raise Refusal(
            f"--train.batch {plan.batch} cannot be shared evenly by {devices} devices: choose "
            "--devices that divide it."
        )
    vocab, assumed = vocabulary(experiment)
    texts = min(plan.batch // devices, plan.micro_batch or plan.batch)
    counted = work(experiment.method, experiment.size, vocab, length)
    tokens = plan.steps * plan.batch * length
    operations = tokens * counted.flops_per_token + plan.steps * counted.flops_per_step
    with fake_tensors(experiment.method, vocab):
        network, _ = networks(experiment.method, experiment.size, vocab, length)
        parameters = sum(p.numel() for p in network.parameters())
    return Forecast(
        parameters,
        vocab,
        assumed,
        length,
        tokens,
        texts,
        memory(experiment, vocab, length, texts, devices),
        4 * tile_side("cuda") ** 2,
        operations,
        device,
        operations / (devices * device.speed) / 3600,
    )


def work(method: Method, size: Size, vocab: int, length: int) -> Work:
    """Count the operations of training, once a process."""
    if method.teacher is not None:
        method = method.with_teacher("any")  # it costs the same wherever the teacher lies
    return _counted(method, size, vocab, length)


@cache
def _counted(method: Method, size: Size, vocab: int, length: int) -> Work:
    # Every block takes the same, and so does every text: two of each tell all.
    one, two = (_work(method, replace(size, blocks=n), vocab, length) for n in (1, 2))
    more = size.blocks - 1
    return Work(
        one.flops_per_token + more * (two.flops_per_token - one.flops_per_token),
        one.flops_per_step + more * (two.flops_per_step - one.flops_per_step),
    )


def memory(experiment: Experiment, vocab: int, length: int, texts: int, devices: int = 1) -> Memory:
    """Bytes of a step on `texts` texts; several devices share the state, but not a teacher.

    Counted byte by byte up to TOKENS tokens (or ENTRIES entries). What more of them take is a
    multiple of what the second half of these takes: exact for activations, near for what is in
    hand.
    """
    tokens = min(TOKENS, ENTRIES // vocab) if experiment.method.in_strips else TOKENS
    most = max(2, tokens // length // 2 * 2)
    whole = count_memory(experiment, vocab, length, min(texts, most))
    if texts > most:
        half = count_memory(experiment, vocab, length, most // 2)
        more = (texts - most) / (most - most // 2)
        whole = replace(
            whole,
            activations=round(whole.activations + more * (whole.activations - half.activations)),
            working=round(whole.working + more * (whole.working - half.working)),
        )
    share = experiment.train.shard or devices
    return replace(
        whole,
        weights=whole.weights // share,
        gradients=whole.gradients // share,
        optimizer=whole.optimizer // share,
        average=whole.average // share,
    )


def count_memory(experiment: Experiment, vocab: int, length: int, texts: int) -> Memory:
    """Count the bytes of a step on one device, the second or a later one, byte by byte.

    Gradients are there already, as they are when several passes share a step.
    """
    plan, method = experiment.train, experiment.method
    with fake_tensors(method, vocab):
        network, teacher = networks(method, experiment.size, vocab, length)
        network.recompute = plan.recompute
        network.head.side = tile_side("cuda")
        state = State(network, plan)
        learnt = [p for p in network.parameters() if p.requires_grad]
        for parameter in learnt:
            parameter.grad = torch.zeros_like(parameter)
        state.optimizer.step()
        weights, average = list(network.parameters()), list(state.average.weights.values())
        guide = [] if teacher is None else list(teacher.parameters())
        gradients = [p.grad for p in learnt if p.grad is not None]
        moments = [t for of in state.optimizer.state.values() for t in of.values()]
        held = (*weights, *guide, *gradients, *moments, *average)
        with Footprint(*held) as seen:
            before = seen.live
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
                value = _paid(state.loss_module, method, teacher, texts, length)
            activations = seen.live - before
            value.backward()
        return Memory(
            weights=_bytes(weights),
            teacher=_bytes(guide),
            gradients=_bytes(gradients),
            optimizer=_bytes(moments),
            average=_bytes(average),
            activations=activations,
            working=seen.peak - before - activations,
        )


@contextmanager
def fake_tensors(method: Method, vocab: int) -> Iterator[None]:
    """Tensors that are shapes alone. The clock's table is numbers, and made before."""
    if (clock := method.time(vocab)) is not None:
        clock.t(torch.zeros(1, 1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def networks(method: Method, size: Size, vocab: int, length: int) -> tuple[DiT, DiT | None]:
    """A new network, and its teacher if it has one."""
    teacher = None
    if (like := method.like_teacher()) is not None:
        teacher = like.network(size, vocab, length).eval().requires_grad_(False)
    return method.network(size, vocab, length, teacher), teacher


def _work(method: Method, size: Size, vocab: int, length: int) -> Work:
    # As many texts as shares of them are whole numbers for.
    texts = max(2, method.evenly)
    few, many = (_operations(method, size, vocab, length, n * texts) for n in (1, 2))
    text = (many - few) / texts
    return Work(text / length, few - texts * text)


def _operations(method: Method, size: Size, vocab: int, length: int, texts: int) -> int:
    with fake_tensors(method, vocab):
        network, teacher = networks(method, size, vocab, length)
        for part in (network, teacher):
            if part is not None:
                # One tile for all: then nothing is computed twice.
                part.head.side = 2**30
        # Attention as plain matrix products: they are counted on every machine.
        counter = FlopCounterMode(display=False, custom_mapping=IN_PLACE)
        with sdpa_kernel(SDPBackend.MATH), counter:
            _paid(LossModule(network), method, teacher, texts, length).backward()
    return counter.get_total_flops()


Shape = Sequence[int]


def _product(total: Shape, a: Shape, b: Shape, **others: object) -> int:
    """Operations of total += a @ b."""
    return 2 * a[0] * a[1] * b[1]


IN_PLACE = {torch.ops.aten.addmm_: _product}
"""A product that is added in place, as to the sums over strips: torch's own count leaves it out."""


def _paid(
    loss_module: LossModule, method: Method, teacher: DiT | None, texts: int, length: int
) -> Tensor:
    """The scalar that a step differentiates."""
    batch = Batch(torch.zeros(texts, length, dtype=torch.long), torch.ones(texts, length))

    def loss(model: DiT, batch: Batch, rng: Streams) -> Loss:
        return method.loss(model, batch, rng, teacher)

    return loss_module(loss, batch, Streams.of(0, count=texts))[0]


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)
