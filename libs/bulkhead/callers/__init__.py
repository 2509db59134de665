"""Callers of the edges: API keys and tokens, each a claim of who asks, and what each holds of a replica."""
