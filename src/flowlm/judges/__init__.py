"""Kinds of judges: a run of ours, and any causal language model."""
