"""Rooms for those who run a mesh."""
