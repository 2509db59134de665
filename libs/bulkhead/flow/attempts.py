"""Attempts at steps, as every decider keys them. Pure.

In: whatever speaks of one attempt. Out: its key.
"""

from typing import Protocol

AttemptKey = tuple[int, str, int]
"""(plan version, step id, attempt)."""


class AttemptReference(Protocol):
    """Whatever speaks of one attempt at a step: most messages about steps."""

    @property
    def plan_version(self) -> int: ...
    @property
    def step_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...


def key_of(reference: AttemptReference) -> AttemptKey:
    """The key of the attempt that this speaks of."""
    return (reference.plan_version, reference.step_id, reference.attempt)
