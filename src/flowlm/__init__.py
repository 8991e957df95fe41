"""flowlm: flow language models, trained, distilled into one-step maps, judged and used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowlm.hub import LanguageModel as LanguageModel
    from flowlm.hub import load as load

_FROM_HUB = ("LanguageModel", "load")


def __getattr__(name: str) -> Any:
    # `import flowlm` stays free of torch, which takes a second: the command line needs that.
    if name in _FROM_HUB:
        from flowlm import hub

        return vars(hub)[name]
    raise AttributeError(f"module 'flowlm' has no attribute {name!r}")
