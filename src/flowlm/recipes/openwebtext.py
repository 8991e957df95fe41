"""OpenWebText: 1,024 tokens of gpt2, packed; the last 100,000 documents held out.

`flowlm prepare openwebtext` first. Hours are no measurement: they are the useful operations that
`flowlm train RECIPE --dry-run` counts, at 40 % of the published peak of an H100 or H200
(989 TFLOP/s), shared by eight. Expected numbers: generative perplexity under gpt2-large / sample
entropy in nats, of 1,024 texts (arXiv 2602.16813, version 3).
"""

from __future__ import annotations

from dataclasses import replace

from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
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
from flowlm.recipes.published import (
    HALF,
    MIXTURE,
    OURS,
    PLAN,
    ROUND,
    ROUND_SDTT,
    SCORES,
    SIZE,
)
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

DATA = Text(path="data/openwebtext", length=1024, vocab=50_258)

# The official code's script for the paper's first version distils with smaller batches than it
# trains; that of the later versions is not known here.
DISTIL = replace(PLAN, batch=128)


def _experiment(
    name: str, method: Method, sampler: Sampler, plan: Plan = PLAN, size: Size = SIZE
) -> Experiment:
    return Experiment(name, method, sampler, DATA, size, plan)


def flow() -> Experiment:
    """OpenWebText: the flow (FLM) with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train owt-flow
    8 H100 or H200: 39.4 hours (estimated). Published: 62.23 / 5.33 in 1024 evaluations.
    """
    return _experiment("owt-flow", Flow(), Euler())


def flow_map() -> Experiment:
    """OpenWebText: the flow map (FMLM) with the published settings, distilled from owt-flow.

    torchrun --nproc-per-node 8 -m flowlm train owt-flow-map
    8 H100 or H200: 15.7 hours (estimated). Published: 168.3 / 5.17 in one evaluation,
    111.3 / 5.26 in four.
    """
    method = FlowMap(teacher="runs/owt-flow")
    return _experiment("owt-flow-map", method, Jumps(gamma=1.0), DISTIL)


def residual() -> Experiment:
    """OpenWebText: a residual flow map of owt-flow, the first stage of the paper's first version.

    torchrun --nproc-per-node 8 -m flowlm train owt-residual
    8 H100 or H200: 26.5 hours (estimated).
    """
    method = ResidualMap(teacher="runs/owt-flow")
    return _experiment("owt-residual", method, ResidualJumps(), DISTIL)


def residual_map() -> Experiment:
    """OpenWebText: one network for the jumps of owt-residual, the second stage.

    torchrun --nproc-per-node 8 -m flowlm train owt-residual-map
    8 H100 or H200: 16.4 hours (estimated). Published (version 1): 129.3 / 4.53 in one evaluation.
    """
    method = ResidualStudent(teacher="runs/owt-residual")
    return _experiment("owt-residual-map", method, Jumps(gamma=0.0), DISTIL)


def flow_bayes() -> Experiment:
    """OpenWebText: the flow with our bayes encoder.

    torchrun --nproc-per-node 8 -m flowlm train owt-flow-bayes
    8 H100 or H200: 47.2 hours (estimated). Nothing is known of it at this size:
    what small trainings say for and against it is in docs/encoders.md.
    """
    return _experiment("owt-flow-bayes", Flow(input=BayesInput()), Jumps(), size=OURS)


def flow_map_bayes() -> Experiment:
    """OpenWebText: the flow map of owt-flow-bayes.

    torchrun --nproc-per-node 8 -m flowlm train owt-flow-map-bayes
    8 H100 or H200: 19.0 hours (estimated). Nothing is known of it at this size.
    """
    method = FlowMap(input=BayesInput(), teacher="runs/owt-flow-bayes")
    return _experiment("owt-flow-map-bayes", method, Jumps(gamma=1.0), DISTIL, OURS)


def masked() -> Experiment:
    """OpenWebText: masked diffusion (MDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train owt-masked
    8 H100 or H200: 39.3 hours (estimated). Published: 105.15 in 1024 evaluations.
    """
    return _experiment("owt-masked", Masked(), Unmask())


def sdtt() -> Experiment:
    """OpenWebText: masked diffusion distilled to write in fewer steps (SDTT): one of seven rounds.

    torchrun --nproc-per-node 8 -m flowlm train owt-sdtt
    8 H100 or H200: 0.173 hours (estimated). Published, in eight steps: 831 / 5.91 before, 618 after
    one round, 193 / 5.58 after five; in 32 then 62.3 / 5.49.
    """
    method = SDTT(teacher="runs/owt-masked", dt=1 / 1024)
    return _experiment("owt-sdtt", method, Unmask(), ROUND_SDTT)


def di4c() -> Experiment:
    """OpenWebText: owt-masked distilled into a mixture of products (Di4C), with 16 latents a text.

    torchrun --nproc-per-node 8 -m flowlm train owt-di4c
    8 H100 or H200: 0.285 hours (estimated). Published after rounds of SDTT.
    """
    return _experiment("owt-di4c", Di4C(teacher="runs/owt-masked"), Unmask(), MIXTURE)


def uniform() -> Experiment:
    """OpenWebText: uniform-state diffusion (UDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train owt-uniform
    8 H100 or H200: 39.3 hours (estimated).
    """
    return _experiment("owt-uniform", UniformState(), Replace())


def duo_curriculum() -> Experiment:
    """OpenWebText: the first half of Duo, uniform-state diffusion with a curriculum.

    torchrun --nproc-per-node 8 -m flowlm train owt-duo-curriculum
    8 H100 or H200: 23.2 hours (estimated).
    """
    return _experiment("owt-duo-curriculum", Curriculum(), Replace(), HALF)


def duo() -> Experiment:
    """OpenWebText: Duo, from the weights of owt-duo-curriculum.

    torchrun --nproc-per-node 8 -m flowlm train owt-duo
    8 H100 or H200: 19.7 hours (estimated).
    """
    method = Duo(teacher="runs/owt-duo-curriculum")
    return _experiment("owt-duo", method, Replace(), HALF)


def dcd() -> Experiment:
    """OpenWebText: Duo distilled to write in fewer steps (DCD), the first of five rounds.

    torchrun --nproc-per-node 8 -m flowlm train owt-dcd
    8 H100 or H200: 0.131 hours (estimated). Published, after five rounds: 112 / 5.52 by eight
    steps, 69.6 / 5.30 with one evaluation more (the greedy tail).
    """
    method = DCD(teacher="runs/owt-duo", delta=1 / 512)
    return _experiment("owt-dcd", method, Replace(), ROUND)


def sedd() -> Experiment:
    """OpenWebText: score entropy diffusion over masks (SEDD) with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train owt-sedd
    8 H100 or H200: 51.1 hours (estimated).
    """
    return _experiment("owt-sedd", SEDD(), Tweedie(), SCORES)


def sedd_uniform() -> Experiment:
    """OpenWebText: score entropy diffusion over uniform noise with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train owt-sedd-uniform
    8 H100 or H200: 51.1 hours (estimated).
    """
    return _experiment("owt-sedd-uniform", SEDDUniform(), TweedieUniform(), SCORES)


def autoregressive() -> Experiment:
    """OpenWebText: an autoregressive model on the same trunk, to compare with and to judge by.

    torchrun --nproc-per-node 8 -m flowlm train owt-autoregressive
    8 H100 or H200: 39.3 hours (estimated).
    """
    return _experiment("owt-autoregressive", Autoregressive(), LeftToRight())


def gumbel() -> Experiment:
    """OpenWebText: a one-step map of owt-autoregressive, by shared Gumbel noise.

    torchrun --nproc-per-node 8 -m flowlm train owt-gumbel
    8 H100 or H200: 16.7 hours (estimated). Nothing is known of it at this size.
    """
    method = GumbelMap(teacher="runs/owt-autoregressive")
    return _experiment("owt-gumbel", method, Draft(), DISTIL)


def map_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-flow, then owt-flow-map.

    torchrun --nproc-per-node 8 -m flowlm train owt-map
    """
    return flow(), flow_map()


def map_bayes_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-flow-bayes, then owt-flow-map-bayes.

    torchrun --nproc-per-node 8 -m flowlm train owt-map-bayes
    """
    return flow_bayes(), flow_map_bayes()


def residual_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-flow, then the two stages of version 1.

    torchrun --nproc-per-node 8 -m flowlm train owt-v1
    """
    return flow(), residual(), residual_map()


def sdtt_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-masked, then the seven published rounds of owt-sdtt.

    torchrun --nproc-per-node 8 -m flowlm train owt-masked-sdtt
    """
    return masked(), *[sdtt()] * 7


def di4c_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-masked, seven rounds of owt-sdtt, then owt-di4c of the last of them.

    torchrun --nproc-per-node 8 -m flowlm train owt-masked-sdtt-di4c
    """
    return *sdtt_chain(), di4c()


def dcd_chain() -> tuple[Experiment, ...]:
    """OpenWebText: Duo with its curriculum, then the five published rounds of owt-dcd.

    torchrun --nproc-per-node 8 -m flowlm train owt-duo-dcd
    """
    return duo_curriculum(), duo(), *[dcd()] * 5


def gumbel_chain() -> tuple[Experiment, ...]:
    """OpenWebText: owt-autoregressive, then its one-step map.

    torchrun --nproc-per-node 8 -m flowlm train owt-autoregressive-gumbel
    """
    return autoregressive(), gumbel()
