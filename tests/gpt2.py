"""A small GPT-2 with a tokenizer of its own, in a folder as `transformers` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = ["the cat sat on the mat", "a dog ran under the old tree", "naïve café, too"]


def write(place: Path, positions: int = 32) -> Path:
    """Two layers, with weights large enough for its predictions to differ."""
    import tokenizers
    import transformers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 3, trainer)
    wrapped: Any = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    wrapped.save_pretrained(place)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(wrapped), n_layer=2, n_head=2, n_embd=16, n_positions=positions,
        bos_token_id=0, eos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return place
