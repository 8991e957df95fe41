"""Numbers per position and token id, (b, l, v), that exist only a chunk at a time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
