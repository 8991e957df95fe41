"""Twenty steps of every method on a tiny network, in any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from several import join_anew

from flowlm import core, nn
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.di4c import Di4C
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.train import Plan, State, World, init_world, train
from writing import film

STEPS, TEXTS, LENGTH, VOCAB = 20, 8, 12, 23
SIZE = nn.Size(2, 16, 2, 8, dropout=0.1, attention_cap=None, output_cap=None, reach=1)
METHODS: dict[str, Method] = {
    "flow": Flow(),
    "flow, bayes": Flow(input=BayesInput()),
    "flow map": FlowMap(),
    "flow map, taught": FlowMap(teacher="a flow"),
    "flow map, bayes, taught": FlowMap(
        input=BayesInput(), teacher="a flow", teacher_temperature=0.8
    ),
    "masked": Masked(),
    "sedd": SEDD(),
    "sedd, uniform": SEDDUniform(),
    "sdtt, taught": SDTT(teacher="a masked diffusion", dt=1 / 8),
    "di4c, taught": Di4C(teacher="a masked diffusion", latents=3, delta=0.25),
    "autoregressive": Autoregressive(),
    "gumbel, taught": GumbelMap(teacher="an autoregressive model"),
    "residual, taught": ResidualMap(teacher="a flow"),
    "student, taught": ResidualStudent(teacher="a map"),
}


@dataclass(frozen=True)
class Layout:
    """How a step is done; it must not matter."""

    processes: int
    shard: int = 0
    micro_batch: int = 0
    recompute: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a training came to, on one process."""

    figures: torch.Tensor
    weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    samples: torch.Tensor
    held: int
    """Numbers in this process's weights, moments and averages."""


Case = tuple[str, torch.dtype]


def outcomes(cases: Mapping[Layout, Sequence[Case]]) -> dict[Layout, dict[Case, Outcome]]:
    """Train in this process's place of layouts with one number of processes, one by one."""
    found = {}
    for layout, wanted in cases.items():
        with init_world(torch.device("cpu"), layout.shard) as world:
            found[layout] = {case: outcome(*case, layout, world) for case in wanted}
        join_anew()
    return found


def outcome(name: str, dtype: torch.dtype, layout: Layout, world: World) -> Outcome:
    method = METHODS[name]
    plan = Plan(
        steps=STEPS, batch=TEXTS, lr=1e-3, warmup=5, ema=0.9,
        shard=layout.shard, micro_batch=layout.micro_batch,
    )  # fmt: skip
    torch.manual_seed(0)
    teacher = None
    if (like := method.like_teacher()) is not None:
        teacher = scattered(like.network(SIZE, VOCAB, LENGTH)).to(dtype)
        teacher = teacher.eval().requires_grad_(False)
    network = scattered(method.network(SIZE, VOCAB, LENGTH, teacher)).to(dtype)
    network.recompute, network.head.side = layout.recompute, 16  # tiles, at this size too
    state = State(network, plan, world, list(network.blocks))
    rows = slice(world.rank * TEXTS // world.size, (world.rank + 1) * TEXTS // world.size)
    whole = [texts(step, dtype) for step in range(STEPS)]

    def own(step: int) -> core.Batch:
        return core.Batch(whole[step].tokens[rows], whole[step].weight[rows])

    def loss(model: nn.DiT, batch: core.Batch, rng: core.Streams) -> core.Loss:
        return method.loss(model, batch, rng, teacher)

    steps = train(state, loss, own, plan)
    figures = [torch.stack((s.loss, s.norm, *s.logs.values())) for s in steps]
    weights = {k: world.full_tensor(p.detach()).clone() for k, p in network.named_parameters()}
    average = {k: v.clone() for k, v in state.average.whole().items()}
    moments = [m for of in state.optimizer.state.values() for m in of.values() if m.ndim]
    spread = (*network.parameters(), *state.average.weights.values(), *moments)
    held = sum(world.local_shard(tensor).numel() for tensor in spread)
    reader = method.network(SIZE, VOCAB, LENGTH).to(dtype)
    reader.load_state_dict(average)
    prompt = torch.full((6, LENGTH), core.FREE)
    samples = film(method, reader.eval(), prompt, 4, core.Streams.of(5, count=6))[-1]
    return Outcome(torch.stack(figures), weights, average, samples, held)


def texts(step: int, dtype: torch.dtype) -> core.Batch:
    """A global batch whose tokens count differently."""
    rng = torch.Generator().manual_seed(step)
    weight = torch.rand(TEXTS, LENGTH, generator=rng, dtype=torch.float64)
    return core.Batch(
        torch.randint(VOCAB, (TEXTS, LENGTH), generator=rng), (weight * (weight > 0.3)).to(dtype)
    )


def scattered(network: nn.DiT) -> nn.DiT:
    """No parameter at zero: no gradient is all rounding, which AdamW would make steps of."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            middle = 1.0 if "norm" in name else 0.0
            if name not in ("encoder.table", "encoder.log_prior"):
                parameter.copy_(middle + 0.2 * torch.randn(parameter.shape))
    return network
