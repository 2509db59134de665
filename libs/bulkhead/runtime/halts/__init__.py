"""Halts: how operators set them, and how doers see them live."""
