"""Parts of an experiment by name. Add your own: `METHODS["Mine"] = Mine`.

A name is what `experiment.json` says as `kind`; on the command line it is written in small letters,
`left-to-right` for LeftToRight, `bayes` for BayesInput.
"""

from __future__ import annotations

import re
from typing import TypeVar

from flowlm.experiment.experiment import AnyData, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.by_length import ByLength
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput, Input, LinearInput, PosteriorInput, ProjectedInput
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.rule import Rule
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.methods.uniform_state import UniformState
from flowlm.sampling.ancestral import Unmask
from flowlm.sampling.bridge import Bridge
from flowlm.sampling.draft import Draft
from flowlm.sampling.jacobi import Jacobi
from flowlm.sampling.jump import Jumps
from flowlm.sampling.left_to_right import LeftToRight
from flowlm.sampling.ode import Euler, Heun
from flowlm.sampling.refine import Refine
from flowlm.sampling.replace import Replace
from flowlm.sampling.residual import ResidualJumps
from flowlm.sampling.sampler import Sampler
from flowlm.sampling.tweedie import Tweedie, TweedieUniform
from flowlm.tasks.addition import Addition
from flowlm.tasks.generated import Generated
from flowlm.tasks.queens import Queens
from flowlm.tasks.sudoku import Sudoku

Kind = TypeVar("Kind")
Kinds = dict[str, type[Kind]]


def _by_name(*kinds: type[Kind]) -> Kinds[Kind]:
    return {kind.__name__: kind for kind in kinds}


METHODS: Kinds[Method] = _by_name(
    Flow, FlowMap, Masked, SDTT, Di4C, UniformState, Curriculum, Duo, DCD, SEDD, SEDDUniform,
    Autoregressive, GumbelMap, ResidualMap, ResidualStudent,
)  # fmt: skip
SAMPLERS: Kinds[Sampler] = _by_name(
    Euler, Heun, Jumps, Bridge, Refine, Unmask, Replace, Tweedie, TweedieUniform, LeftToRight,
    Jacobi, Draft, ResidualJumps,
)  # fmt: skip
RULES: Kinds[Rule] = _by_name(Semigroup, Lagrangian, Eulerian, TeacherLeg, ByLength)
INPUTS: Kinds[Input] = _by_name(ProjectedInput, LinearInput, PosteriorInput, BayesInput)
DATA: Kinds[AnyData] = _by_name(Text, Generated, Queens, Sudoku, Addition)


def spelt(name: str) -> str:
    """The name of a kind on the command line."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name.removesuffix("Input")).lower()


def by_word(kinds: Kinds[Kind]) -> Kinds[Kind]:
    """Kinds by their names on the command line."""
    return {spelt(name): kind for name, kind in kinds.items()}
