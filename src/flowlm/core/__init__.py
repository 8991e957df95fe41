"""The mathematics: pure functions and frozen values. Imports torch only, and only when used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
