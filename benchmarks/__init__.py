"""Timings and studies, one command each: python -m benchmarks.NAME."""
