"""Deadlock detection: the wait-for graph, its cycles, confirmation and victim."""
