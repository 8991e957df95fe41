"""The text that a model has learnt from, where it is at hand."""

from __future__ import annotations

import glob
import tempfile
from dataclasses import replace
from pathlib import Path

from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import is_prepared
from flowlm.errors import Refusal
from flowlm.experiment import Text
from flowlm.hub.names import located
from flowlm.model.language_model import LanguageModel
from flowlm.run.inputs import Inputs, open_inputs, text_name
from flowlm.run.watch import Watch


def own_inputs(run: str, model: LanguageModel, watch: Watch) -> Inputs | None:
    """The text of a model `run`, where it is at hand.

    A run's own tokens are read; other text is prepared into a directory that does not stay.
    """
    own = located(run) / "tokens"
    experiment, tokenizer = model.experiment, model.tokenizer
    if isinstance(experiment.data, Text):
        path = experiment.data.path or ""
        if is_prepared(path) or is_prepared(own):
            _require_own(path if is_prepared(path) else own, tokenizer, run)
        elif glob.glob(path):
            watch.say(f"Preparing {path} for its held-out text.")
        else:
            return None
        # The text is read as the model reads it, whoever made its tokenizer.
        experiment = replace(experiment, data=replace(experiment.data, tokenizer=None))
    with tempfile.TemporaryDirectory(prefix="flowlm-") as scratch:
        tokens = own if is_prepared(own) else Path(scratch) / "tokens"
        source = open_inputs(experiment, tokens, tokenizer)
    if model.fingerprints is None and not isinstance(experiment.data, Text):
        return source  # its texts are judged as the task's as well
    if model.fingerprints is None:
        watch.say(
            f"{run} does not say which text it has learnt from: its held-out text is left out."
        )
        return None
    if source.fingerprint != model.fingerprints.data:
        raise Refusal(
            f"{text_name(experiment)} is not the text that {run} has learnt from (its "
            "tokens have changed): put that one back, or move this one away to do without "
            "held-out text."
        )
    return source


def _require_own(prepared: str | Path, tokenizer: Tokenizer | None, run: str) -> None:
    theirs = Tokenizer.load(Path(prepared) / "tokenizer.json")
    if tokenizer is None or theirs.fingerprint != tokenizer.fingerprint:
        raise Refusal(
            f"{prepared}, the text of {run}, has another tokenizer than the model: leave "
            "--tokenizer out, or give the one that the model was trained with."
        )
