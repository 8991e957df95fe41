from .evidence import Evidence as Evidence
from .points import LazyPoint as LazyPoint
from .posterior import posterior_mean as posterior_mean
from .prediction import HeadPrediction as HeadPrediction
from .space import LazyOneHot as LazyOneHot
