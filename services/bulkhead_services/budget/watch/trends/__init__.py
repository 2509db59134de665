"""Trends over many tasks of a tenant: what is slower than its target, or uses more than before."""
