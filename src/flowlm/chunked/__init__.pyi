from .evidence import Evidence as Evidence
from .logits import CentredLogits as CentredLogits
from .logits import centred as centred
from .points import LazyPoint as LazyPoint
from .prediction import HeadPrediction as HeadPrediction
from .prediction import posterior as posterior
from .residual import ResidualPrediction as ResidualPrediction
from .space import LazyOneHot as LazyOneHot
