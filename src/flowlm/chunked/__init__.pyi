from .evidence import Evidence as Evidence
from .gumbel import gumbel_noise as gumbel_noise
from .gumbel import gumbel_posterior as gumbel_posterior
from .points import LazyPoint as LazyPoint
from .prediction import HeadPrediction as HeadPrediction
from .prediction import posterior as posterior
from .space import LazyOneHot as LazyOneHot
