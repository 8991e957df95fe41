"""The page of a model: files that a server sends, or that are joined into one with the model."""
