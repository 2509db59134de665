"""Deterministic simulation: the whole mesh, every service's real code, under a seeded scheduler with virtual time."""
