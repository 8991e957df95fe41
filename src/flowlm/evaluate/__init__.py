"""Honest evaluation: quality and diversity, always as a pair, beside controls."""
