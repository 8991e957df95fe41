"""Tasks: texts that a program writes and checks."""
