"""Roles that the offline model plays: planner, worker, judge, and misbehaving ones."""
