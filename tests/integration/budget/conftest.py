"""Fixtures of budget's world for every test of this folder that has none of its own."""

from tests.integration.budget.budget_world import redis, world

__all__ = ("redis", "world")
