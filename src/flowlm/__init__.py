"""flowlm: flow language models, trained, distilled into one-step maps, judged and used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from flowlm.model.language_model import LanguageModel as LanguageModel


def load(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> LanguageModel:
    """A model by any of its names, as `model.loading.load` says; `dtype` is torch.float32 or so.

    A name that means nothing is refused before torch is imported.
    """
    from flowlm.model.finding import find_model

    place = find_model(name)
    import torch

    from flowlm.model import loading

    return loading.load(place, device, torch.float32 if dtype is None else dtype, tokenizer)


def __getattr__(name: str) -> Any:
    # `import flowlm` stays free of torch, which takes a second: the command line needs that.
    if name == "LanguageModel":
        from flowlm.model.language_model import LanguageModel

        return LanguageModel
    raise AttributeError(f"module 'flowlm' has no attribute {name!r}")
