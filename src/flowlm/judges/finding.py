"""Finding a judge by its name before anything is imported that takes seconds. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from flowlm.hub.names import TOKENIZER_FILES, HubId, hub_id, located
from flowlm.hub.transfer import fetch
from flowlm.model.finding import find_model

KNOWN = {
    name: HubId(f"openai-community/{name}", None)
    for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
}
"""Judges of papers, by the names that papers use."""

FILES = (
    "experiment.json", "fingerprints.json", "config.json", "generation_config.json",
    "*.safetensors", "*.safetensors.index.json", "tokenizer_config.json",
    "special_tokens_map.json", *TOKENIZER_FILES,
)  # fmt: skip
"""What is fetched of a judge: no pickle, no code."""


def find_judge(name: str) -> Path:
    """Where the judge is that `name` means, a run or a folder of transformers files.

    What is on the hub is fetched into its cache. A Refusal if there is nothing of that name.
    """
    there = hub_id(name)
    if there is None and not os.path.exists(located(name)):
        there = KNOWN.get(name)
    place = located(name) if there is None else fetch(there, FILES)
    return place if is_causal(place) else find_model(place if there else name)


def is_causal(place: Path) -> bool:
    """Whether a folder holds a model of transformers, and no run of ours."""
    return (place / "config.json").exists() and not (place / "experiment.json").exists()
