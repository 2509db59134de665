"""Receiving: the consume loop, and the checks from a stored message to one that can be handled."""
