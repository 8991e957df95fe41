"""Networks: a point (or tokens) and times in, a distribution over tokens out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
