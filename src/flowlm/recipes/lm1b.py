"""LM1B, the One Billion Word Benchmark: 128 tokens of bert-base-uncased, packed.

`flowlm prepare lm1b` first. Hours are no measurement: they are the useful operations that
`flowlm train RECIPE --dry-run` counts, at 40 % of the published peak of an H100 or H200
(989 TFLOP/s), shared by eight. Expected numbers: generative perplexity under gpt2-large / sample
entropy in nats, of 1,024 texts (arXiv 2602.16813, version 3).
"""

from __future__ import annotations

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

DATA = Text(path="data/lm1b", length=128, vocab=30_522)


def _experiment(
    name: str, method: Method, sampler: Sampler, size: Size = SIZE, plan: Plan = PLAN
) -> Experiment:
    return Experiment(name, method, sampler, DATA, size, plan)


def flow() -> Experiment:
    """LM1B: the flow (FLM) with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-flow
    8 H100 or H200: 3.84 hours (estimated). Published: 96.91 / 4.29 in 1024 evaluations.
    """
    return _experiment("lm1b-flow", Flow(), Euler())


def flow_map() -> Experiment:
    """LM1B: the flow map (FMLM) with the published settings, distilled from lm1b-flow.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-flow-map
    8 H100 or H200: 6.02 hours (estimated). Published: 119.3 / 4.16 in one evaluation,
    98.8 / 4.21 in four.
    """
    method = FlowMap(teacher="runs/lm1b-flow")
    return _experiment("lm1b-flow-map", method, Jumps(gamma=0.8))


def residual() -> Experiment:
    """LM1B: a residual flow map of lm1b-flow, the first stage of the paper's first version.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-residual
    8 H100 or H200: 10.0 hours (estimated).
    """
    method = ResidualMap(teacher="runs/lm1b-flow")
    return _experiment("lm1b-residual", method, ResidualJumps())


def residual_map() -> Experiment:
    """LM1B: one network for the jumps of lm1b-residual, the second stage.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-residual-map
    8 H100 or H200: 6.38 hours (estimated). Published (version 1): 104.4 / 4.12 in one evaluation.
    """
    method = ResidualStudent(teacher="runs/lm1b-residual")
    return _experiment("lm1b-residual-map", method, Jumps(gamma=0.0))


def flow_bayes() -> Experiment:
    """LM1B: the flow with our bayes encoder.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-flow-bayes
    8 H100 or H200: 4.47 hours (estimated). Nothing is known of it at this size:
    what small trainings say for and against it is in docs/encoders.md.
    """
    return _experiment("lm1b-flow-bayes", Flow(input=BayesInput()), Jumps(), OURS)


def flow_map_bayes() -> Experiment:
    """LM1B: the flow map of lm1b-flow-bayes.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-flow-map-bayes
    8 H100 or H200: 7.24 hours (estimated). Nothing is known of it at this size.
    """
    method = FlowMap(input=BayesInput(), teacher="runs/lm1b-flow-bayes")
    return _experiment("lm1b-flow-map-bayes", method, Jumps(gamma=0.8), OURS)


def masked() -> Experiment:
    """LM1B: masked diffusion (MDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-masked
    8 H100 or H200: 3.82 hours (estimated). Published: 109.21 / 4.32 in 1024 evaluations.
    """
    return _experiment("lm1b-masked", Masked(), Unmask())


def sdtt() -> Experiment:
    """LM1B: masked diffusion distilled to write in fewer steps (SDTT), the first of seven rounds.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-sdtt
    8 H100 or H200: 0.0166 hours (estimated).
    """
    method = SDTT(teacher="runs/lm1b-masked", dt=1 / 1024)
    return _experiment("lm1b-sdtt", method, Unmask(), plan=ROUND_SDTT)


def di4c() -> Experiment:
    """LM1B: lm1b-masked distilled into a mixture of products (Di4C), with 16 latents a text.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-di4c
    8 H100 or H200: 0.0275 hours (estimated).
    """
    return _experiment("lm1b-di4c", Di4C(teacher="runs/lm1b-masked"), Unmask(), plan=MIXTURE)


def uniform() -> Experiment:
    """LM1B: uniform-state diffusion (UDLM) on the same trunk, to compare with.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-uniform
    8 H100 or H200: 3.82 hours (estimated).
    """
    return _experiment("lm1b-uniform", UniformState(), Replace())


def duo_curriculum() -> Experiment:
    """LM1B: the first half of Duo, uniform-state diffusion with a curriculum.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-duo-curriculum
    8 H100 or H200: 2.18 hours (estimated).
    """
    return _experiment("lm1b-duo-curriculum", Curriculum(), Replace(), plan=HALF)


def duo() -> Experiment:
    """LM1B: Duo, from the weights of lm1b-duo-curriculum.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-duo
    8 H100 or H200: 1.91 hours (estimated).
    """
    method = Duo(teacher="runs/lm1b-duo-curriculum")
    return _experiment("lm1b-duo", method, Replace(), plan=HALF)


def dcd() -> Experiment:
    """LM1B: Duo distilled to write in fewer steps (DCD), the first of five rounds.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-dcd
    8 H100 or H200: 0.0127 hours (estimated).
    """
    method = DCD(teacher="runs/lm1b-duo", delta=1 / 512)
    return _experiment("lm1b-dcd", method, Replace(), plan=ROUND)


def sedd() -> Experiment:
    """LM1B: score entropy diffusion over masks (SEDD) with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-sedd
    8 H100 or H200: 4.97 hours (estimated).
    """
    return _experiment("lm1b-sedd", SEDD(), Tweedie(), plan=SCORES)


def sedd_uniform() -> Experiment:
    """LM1B: score entropy diffusion over uniform noise with the published settings.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-sedd-uniform
    8 H100 or H200: 4.97 hours (estimated).
    """
    return _experiment("lm1b-sedd-uniform", SEDDUniform(), TweedieUniform(), plan=SCORES)


def autoregressive() -> Experiment:
    """LM1B: an autoregressive model on the same trunk, to compare with and to judge by.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-autoregressive
    8 H100 or H200: 3.82 hours (estimated).
    """
    return _experiment("lm1b-autoregressive", Autoregressive(), LeftToRight())


def gumbel() -> Experiment:
    """LM1B: a one-step map of lm1b-autoregressive, by shared Gumbel noise.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-gumbel
    8 H100 or H200: 6.18 hours (estimated). Nothing is known of it at this size.
    """
    method = GumbelMap(teacher="runs/lm1b-autoregressive")
    return _experiment("lm1b-gumbel", method, Draft())


def map_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-flow, then lm1b-flow-map.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-map
    """
    return flow(), flow_map()


def map_bayes_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-flow-bayes, then lm1b-flow-map-bayes.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-map-bayes
    """
    return flow_bayes(), flow_map_bayes()


def residual_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-flow, then the two stages of version 1.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-v1
    """
    return flow(), residual(), residual_map()


def sdtt_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-masked, then the seven published rounds of lm1b-sdtt.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-masked-sdtt
    """
    return masked(), *[sdtt()] * 7


def di4c_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-masked, seven rounds of lm1b-sdtt, then lm1b-di4c of the last of them.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-masked-sdtt-di4c
    """
    return *sdtt_chain(), di4c()


def dcd_chain() -> tuple[Experiment, ...]:
    """LM1B: Duo with its curriculum, then the five published rounds of lm1b-dcd.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-duo-dcd
    """
    return duo_curriculum(), duo(), *[dcd()] * 5


def gumbel_chain() -> tuple[Experiment, ...]:
    """LM1B: lm1b-autoregressive, then its one-step map.

    torchrun --nproc-per-node 8 -m flowlm train lm1b-autoregressive-gumbel
    """
    return autoregressive(), gumbel()
