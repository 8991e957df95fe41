"""Reading a Lightning checkpoint without running anything that it says.

A `.ckpt` is a pickle, and a pickle is a program. torch's `weights_only` reader runs none of it
but an allow-list. What a released checkpoint holds beside tensors and plain containers are the
classes below, of packages that need not be installed: each becomes an `Inert`, which keeps its
state and does nothing with it. Any other name in the file is refused before anything is built.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from flowlm.errors import Refusal, reason

_CLASSES = {
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
    # The checkpoint's own tokenizer.
    "tokenizers": ("AddedToken", "Tokenizer"),
    "tokenizers.models": ("Model",),
    "transformers.models.bert.tokenization_bert": (
        "BasicTokenizer", "BertTokenizer", "WordpieceTokenizer",
    ),
    "transformers.models.bert.tokenization_bert_fast": ("BertTokenizerFast",),
    "transformers.models.gpt2.tokenization_gpt2": ("GPT2Tokenizer",),
    "transformers.models.gpt2.tokenization_gpt2_fast": ("GPT2TokenizerFast",),
    "transformers.tokenization_utils": ("Trie",),
    "regex._regex": ("compile",),
    # What a configuration says of the types of its values.
    "typing": ("Any",),
    "builtins": ("bool", "dict", "float", "int", "list", "str", "tuple"),
}  # fmt: skip
"""Module -> names in it that a released checkpoint may hold."""


class Inert:
    """Stand-in for an allowed class: the state that it was given, and no behaviour."""

    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:
        """Made from whatever arguments the original takes; they are dropped."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str) -> Any:
        """An attribute of the original, or None."""
        return self.state.get(name) if isinstance(self.state, dict) else None


def _plain_dict(*factory: Any) -> dict[Any, Any]:
    """Stand-in for a defaultdict: its entries follow one by one."""
    return {}


def read_pickled(file: Path) -> dict[str, Any]:
    """The top of a checkpoint file: tensors (mapped, not yet read), plain containers, `Inert`.

    A Refusal if the file is damaged, is no checkpoint, or names anything outside the allow-list;
    nothing has been executed then.
    """
    allowed: list[Any] = [
        (Inert, f"{module}.{name}") for module, names in _CLASSES.items() for name in names
    ]
    allowed.append((_plain_dict, "collections.defaultdict"))
    try:
        if not zipfile.is_zipfile(file):
            raise Refusal(
                f"{file} is no Lightning checkpoint, or it is cut short: name a whole .ckpt file, "
                "or the folder that holds a model.safetensors."
            )
        with torch.serialization.safe_globals(allowed):
            if foreign := sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file)):
                raise Refusal(
                    f"{file} asks for {', '.join(foreign)}, which no released checkpoint needs: "
                    "nothing of it was executed, and it will not be loaded."
                )
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Refusal:
        raise
    except Exception as error:  # a pickle of nonsense makes the reader fail in any way it likes
        raise Refusal(
            f"{file} is damaged or no Lightning checkpoint ({reason(error)}): fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise Refusal(f"{file} holds no Lightning checkpoint: name one of the released files.")
    return content


def unwrapped(value: Any) -> Any:
    """Content of a node of a configuration: a value, or a container of further nodes."""
    if not isinstance(value, Inert):
        return value
    content = value.get("_content")
    return value.get("_val") if content is None else content
