"""Judges of answers, what people hold them against, and what their verdicts may decide."""
