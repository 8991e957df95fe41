"""The demo's four models: one trunk, one language, the same training compute each; one more."""

from __future__ import annotations

from dataclasses import replace

from flowlm.experiment import Experiment
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import PosteriorInput
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
from flowlm.sampling.replace import Replace
from flowlm.sampling.residual import ResidualJumps
from flowlm.sampling.sampler import Sampler
from flowlm.sampling.tweedie import Tweedie, TweedieUniform
from flowlm.tasks.generated import Generated
from flowlm.train.plan import Plan

SIZE = Size(
    blocks=6, width=64, heads=4, condition=32, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned",
)  # fmt: skip
PLAN = Plan(
    steps=2000, batch=32, lr=3e-3, warmup=50, decay=0.5, beta2=0.99, ema=0.99, keep=1,
    log_every=25, validate_every=10**9, save_every=10**9, device="cpu", threads=1,
)  # fmt: skip


FEW_AT_ONCE = replace(PLAN, batch=8, lr=2e-3, decay=0.9, ema=0.998)
"""Of the map, SDTT and DCD, which at equal compute learn more from four times as many steps of
eight texts; version 1 and Di4C do not (docs/fair-comparison.md)."""


def _experiment(
    name: str, method: Method, sampler: Sampler, steps: int, lr: float = 3e-3
) -> Experiment:
    return Experiment(name, method, sampler, Generated(), SIZE, replace(PLAN, steps=steps, lr=lr))


def flow() -> Experiment:
    """The demo's flow (FLM), 2000 steps."""
    return _experiment("demo-flow", Flow(input=PosteriorInput()), Jumps(), steps=2000)


def flow_map() -> Experiment:
    """The demo's flow map (FMLM), distilled from its flow in 5960 steps of few texts.

    Flow and map together cost as much as either baseline alone.
    """
    method = FlowMap(input=PosteriorInput(), rule=Eulerian(boundary=0.25))
    plan = replace(FEW_AT_ONCE, steps=5960)
    return Experiment("demo-flow-map", method, Jumps(), Generated(), SIZE, plan)


def residual() -> Experiment:
    """A residual flow map of the demo's flow: the first stage of the paper's first version.

    flowlm train demo-residual --method.teacher runs/demo-flow
    """
    method = ResidualMap(input=PosteriorInput(), teacher="runs/demo-flow")
    return _experiment("demo-residual", method, ResidualJumps(), steps=670, lr=1.5e-3)


def residual_map() -> Experiment:
    """One network for the jumps of demo-residual: the second stage.

    flowlm train demo-residual-map --method.teacher runs/demo-residual
    Both stages together cost as much as demo-flow-map with its teacher.
    """
    method = ResidualStudent(input=PosteriorInput(), teacher="runs/demo-residual")
    return _experiment("demo-residual-map", method, Jumps(gamma=0.0), steps=700, lr=1.5e-3)


def masked() -> Experiment:
    """The demo's masked diffusion."""
    return _experiment("demo-masked", Masked(), Unmask(), steps=4850)


def sdtt_base() -> Experiment:
    """The demo's masked diffusion as demo-sdtt distils it: trained for two thirds as long."""
    return _experiment("demo-sdtt-base", Masked(), Unmask(), steps=3230)


def sdtt() -> Experiment:
    """The demo's masked diffusion, distilled in one round: two steps of sixteen at once.

    Its base and this cost together as much as a baseline alone.
    """
    method = SDTT(teacher="runs/demo-sdtt-base", dt=1 / 16)
    plan = replace(FEW_AT_ONCE, steps=3880)
    return Experiment("demo-sdtt", method, Unmask(), Generated(), SIZE, plan)


def uniform() -> Experiment:
    """The demo's uniform-state diffusion."""
    return _experiment("demo-uniform", UniformState(), Replace(), steps=4850)


def duo_curriculum() -> Experiment:
    """The first stage of the demo's Duo."""
    return _experiment("demo-duo-curriculum", Curriculum(), Replace(), steps=1600)


def duo() -> Experiment:
    """The demo's Duo, from the weights of its curriculum."""
    method = Duo(teacher="runs/demo-duo-curriculum")
    return _experiment("demo-duo", method, Replace(), steps=1600)


def dcd() -> Experiment:
    """The demo's Duo, distilled in one round: times as far apart as those of eight steps.

    Curriculum, Duo and this cost together as much as a baseline alone.
    """
    method = DCD(teacher="runs/demo-duo", delta=1 / 8)
    plan = replace(FEW_AT_ONCE, steps=4920)
    return Experiment("demo-dcd", method, Replace(), Generated(), SIZE, plan)


def sedd() -> Experiment:
    """The demo's score entropy diffusion over masks (SEDD)."""
    return _experiment("demo-sedd", SEDD(), Tweedie(), steps=4850)


def sedd_uniform() -> Experiment:
    """The demo's score entropy diffusion over uniform noise."""
    return _experiment("demo-sedd-uniform", SEDDUniform(), TweedieUniform(), steps=4850)


def di4c_base() -> Experiment:
    """The demo's masked diffusion as demo-di4c distils it: trained for half as long."""
    return _experiment("demo-di4c-base", Masked(), Unmask(), steps=2425)


def di4c() -> Experiment:
    """The demo's masked diffusion, distilled into a mixture of products: four latents a text.

    Its base and this cost together as much as a baseline alone.
    """
    method = Di4C(teacher="runs/demo-di4c-base", latents=4, delta=1 / 8, alpha=1.0)
    return _experiment("demo-di4c", method, Unmask(), steps=400, lr=1.5e-3)


def autoregressive() -> Experiment:
    """The demo's autoregressive model."""
    return _experiment("demo-autoregressive", Autoregressive(), LeftToRight(), steps=4850)


def gumbel() -> Experiment:
    """A one-step map of the demo's autoregressive model, whose training comes on top of its own.

    flowlm train demo-gumbel --method.teacher runs/demo-autoregressive
    2000 steps.
    """
    method = GumbelMap(teacher="runs/demo-autoregressive")
    return _experiment("demo-gumbel", method, Draft(), steps=2000)


def map_chain() -> tuple[Experiment, ...]:
    """The demo's flow, then its flow map."""
    return flow(), flow_map()


def residual_chain() -> tuple[Experiment, ...]:
    """The demo's flow, then version 1 of its map: a residual map, and one network for its jumps."""
    return flow(), residual(), residual_map()


def sdtt_chain() -> tuple[Experiment, ...]:
    """The demo's masked diffusion, then two rounds of SDTT: steps of 1/16, then of 1/8."""
    return sdtt_base(), sdtt(), sdtt()


def di4c_chain() -> tuple[Experiment, ...]:
    """The demo's masked diffusion, then a mixture of products distilled from it (Di4C)."""
    return di4c_base(), di4c()


def dcd_chain() -> tuple[Experiment, ...]:
    """The demo's Duo with its curriculum, then two rounds of DCD: times 1/8 apart, then 1/4."""
    return duo_curriculum(), duo(), dcd(), dcd()


def gumbel_chain() -> tuple[Experiment, ...]:
    """The demo's autoregressive model, then its one-step map."""
    return autoregressive(), gumbel()
