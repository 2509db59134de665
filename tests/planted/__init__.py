"""Planted bugs: mistakes that a good engineer could make, each alone in a copy of the tree, and which suite sees it."""
