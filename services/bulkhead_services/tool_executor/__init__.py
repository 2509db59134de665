"""Tools: the only service that makes side effects, and the boundary that they pass."""
