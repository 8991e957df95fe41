"""The study of encoders: what a network sees of a noisy row, at equal compute."""
