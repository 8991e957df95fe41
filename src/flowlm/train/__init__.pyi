from .checkpoint import restore as restore
from .checkpoint import save as save
from .ema import Average as Average
from .log import Log as Log
from .plan import Plan as Plan
from .trainer import State as State
from .trainer import Step as Step
from .trainer import train as train
