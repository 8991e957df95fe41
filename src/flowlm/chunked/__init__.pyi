from .evidence import Evidence as Evidence
from .points import LazyPoint as LazyPoint
from .prediction import HeadPrediction as HeadPrediction
from .prediction import posterior as posterior
from .space import LazyOneHot as LazyOneHot
