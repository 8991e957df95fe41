"""flowlm: flow language models, trained, distilled into one-step maps, judged and used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowlm.loading import load as load
    from flowlm.model import LanguageModel as LanguageModel


def __getattr__(name: str) -> Any:
    # `import flowlm` stays free of torch, which takes a second: the command line needs that.
    if name == "load":
        from flowlm.loading import load

        return load
    if name == "LanguageModel":
        from flowlm.model import LanguageModel

        return LanguageModel
    raise AttributeError(f"module 'flowlm' has no attribute {name!r}")
