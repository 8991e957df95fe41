"""A trained model: found, loaded, written with, saved and published."""
