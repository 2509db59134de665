"""Evaluation: cases with checks, runs of them through a port, and what can be concluded from the runs."""
