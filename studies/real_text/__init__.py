"""Flows and their rivals on real text, at equal compute (`python -m studies.real_text`)."""
