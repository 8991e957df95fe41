from .ancestral import autoregress as autoregress
from .ancestral import unmask as unmask
from .jump import jumps as jumps
from .ode import Frame as Frame
from .ode import euler as euler
from .ode import heun as heun
