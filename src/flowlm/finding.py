"""Finding models and tokenizers before anything is imported that takes seconds. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from flowlm import hub
from flowlm.checks import file_name
from flowlm.data.pretrained import read_tokenizer
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import read_experiment
from flowlm.official import is_official


def find_model(name: str | Path) -> Path:
    """Where the model is that `name` means (see `flowlm.load`); a Refusal if there is none.

    What is on the hub is fetched into its cache.
    """
    place = hub.locate(file_name("The name of a model", name))
    if not is_official(place):
        read_experiment(place)
    return place


def find_tokenizer(name: str | Path) -> Tokenizer:
    """A tokenizer from a file, a folder, a short name of `TOKENIZERS`, or the hub."""
    place = Path(os.path.expanduser(name))
    if name == "" or not os.path.exists(place):
        there = hub.hub_id(hub.TOKENIZERS.get(str(name), name))
        if there is None:
            raise Refusal(
                f"{name or 'The empty path'} is no tokenizer here{hub.aside(name)}: give a "
                "tokenizer.json, a vocab.txt, a folder of either, "
                f"{', '.join(hub.TOKENIZERS)}, or hf:owner/name."
            )
        place = hub.fetch(there, hub.TOKENIZER_FILES)
    found = read_tokenizer(place)
    if found is None:
        raise Refusal(f"{name} has no tokenizer.json, vocab.txt, or vocab.json with merges.txt.")
    return found
