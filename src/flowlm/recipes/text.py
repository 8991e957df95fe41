"""Any text of your own, on a laptop. All share one trunk of 3 M parameters."""

from __future__ import annotations

from dataclasses import replace

from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
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
from flowlm.methods.uniform_state import UniformState
from flowlm.nn.size import Size
from flowlm.sampling.ancestral import Unmask
from flowlm.sampling.draft import Draft
from flowlm.sampling.jump import Jumps
from flowlm.sampling.left_to_right import LeftToRight
from flowlm.sampling.ode import Euler
from flowlm.sampling.replace import Replace
from flowlm.sampling.residual import ResidualJumps
from flowlm.sampling.sampler import Sampler
from flowlm.sampling.tweedie import Tweedie, TweedieUniform
from flowlm.train.plan import Plan

SIZE = Size(
    blocks=6, width=192, heads=6, condition=64, dropout=0.0, attention_cap=None, output_cap=None,
    reach=2,
)  # fmt: skip
PLAN = Plan(steps=3000, batch=16, lr=1e-3, warmup=100, decay=0.5, beta2=0.99, ema=0.995, keep=2)


def _experiment(name: str, method: Method, sampler: Sampler, plan: Plan = PLAN) -> Experiment:
    return Experiment(name, method, sampler, Text(), SIZE, plan)


def flow() -> Experiment:
    """A flow language model of a text (FLM).

    flowlm train text-flow --data.path FILE
    """
    return _experiment("text-flow", Flow(input=BayesInput()), Euler(temperature=0.7))


def flow_map() -> Experiment:
    """A flow map of a text (FMLM), which writes in one step; distilled from a text-flow run.

    flowlm train text-flow-map --method.teacher runs/text-flow
    """
    return _experiment("text-flow-map", FlowMap(input=BayesInput()), Jumps())


def residual() -> Experiment:
    """A residual flow map of a text-flow run: the first stage of the paper's first version.

    flowlm train text-residual --method.teacher runs/text-flow
    """
    method = ResidualMap(input=BayesInput(), teacher="runs/text-flow")
    return _experiment("text-residual", method, ResidualJumps())


def residual_map() -> Experiment:
    """One network for the jumps of a text-residual run, which writes in one step: the second stage.

    flowlm train text-residual-map --method.teacher runs/text-residual
    """
    method = ResidualStudent(input=BayesInput(), teacher="runs/text-residual")
    return _experiment("text-residual-map", method, Jumps(gamma=0.0))


def masked() -> Experiment:
    """Masked diffusion on the same trunk, to compare with.

    flowlm train text-masked --data.path FILE
    """
    return _experiment("text-masked", Masked(), Unmask())


def sdtt() -> Experiment:
    """Masked diffusion that writes in fewer steps (SDTT); distilled from a text-masked run.

    flowlm train text-sdtt --method.teacher runs/text-masked
    A round: the next has this one as its teacher, and takes steps twice as long by itself.
    """
    plan = replace(PLAN, steps=1000, lr=3e-4)
    return _experiment("text-sdtt", SDTT(teacher="runs/text-masked"), Unmask(), plan)


def di4c() -> Experiment:
    """Masked diffusion that writes in fewer steps, as a mixture of products (Di4C).

    flowlm train text-di4c --method.teacher runs/text-masked
    A step reads every text 33 times: with 8 latents, going forward, and without gradients.
    """
    method = Di4C(teacher="runs/text-masked", latents=8, delta=1 / 128, alpha=1.0)
    plan = replace(PLAN, steps=300, lr=3e-4)
    return _experiment("text-di4c", method, Unmask(), plan)


def uniform() -> Experiment:
    """Uniform-state diffusion on the same trunk, to compare with.

    flowlm train text-uniform --data.path FILE
    """
    return _experiment("text-uniform", UniformState(), Replace())


def dcd() -> Experiment:
    """Uniform-state diffusion that writes in fewer steps (DCD); distilled from a text-uniform run.

    flowlm train text-dcd --method.teacher runs/text-uniform
    A round: the next has this one as its teacher, and looks twice as far by itself.
    """
    plan = replace(PLAN, steps=1000, lr=3e-4)
    return _experiment("text-dcd", DCD(teacher="runs/text-uniform"), Replace(), plan)


def sedd() -> Experiment:
    """Score entropy diffusion over masks (SEDD) on the same trunk, to compare with.

    flowlm train text-sedd --data.path FILE
    """
    return _experiment("text-sedd", SEDD(), Tweedie())


def sedd_uniform() -> Experiment:
    """Score entropy diffusion over uniform noise on the same trunk, to compare with.

    flowlm train text-sedd-uniform --data.path FILE
    """
    return _experiment("text-sedd-uniform", SEDDUniform(), TweedieUniform())


def autoregressive() -> Experiment:
    """An autoregressive model on the same trunk, to compare with and to judge by.

    flowlm train text-autoregressive --data.path FILE
    """
    return _experiment("text-autoregressive", Autoregressive(), LeftToRight())


def gumbel() -> Experiment:
    """A one-step map of a text-autoregressive run, by shared Gumbel noise.

    flowlm train text-gumbel --method.teacher runs/text-autoregressive
    """
    method = GumbelMap(teacher="runs/text-autoregressive")
    return _experiment("text-gumbel", method, Draft())


def map_chain() -> tuple[Experiment, ...]:
    """A flow of a text, then its flow map, one after the other.

    flowlm train text-map --data.path FILE
    """
    return flow(), flow_map()


def residual_chain() -> tuple[Experiment, ...]:
    """A flow of a text, then version 1 of its map: a residual map, and one network for its jumps.

    flowlm train text-v1 --data.path FILE
    """
    return flow(), residual(), residual_map()


def sdtt_chain() -> tuple[Experiment, ...]:
    """Masked diffusion of a text, then three rounds of SDTT.

    flowlm train text-masked-sdtt --data.path FILE
    """
    return masked(), sdtt(), sdtt(), sdtt()


def di4c_chain() -> tuple[Experiment, ...]:
    """Masked diffusion of a text, then a mixture of products distilled from it (Di4C).

    flowlm train text-masked-di4c --data.path FILE
    """
    return masked(), di4c()


def dcd_chain() -> tuple[Experiment, ...]:
    """Uniform-state diffusion of a text, then three rounds of DCD.

    flowlm train text-uniform-dcd --data.path FILE
    """
    return uniform(), dcd(), dcd(), dcd()


def gumbel_chain() -> tuple[Experiment, ...]:
    """An autoregressive model of a text, then its one-step map.

    flowlm train text-autoregressive-gumbel --data.path FILE
    """
    return autoregressive(), gumbel()
