"""Text: corpora, tokenizers, memory-mapped tokens, batches, and the demo's language."""
