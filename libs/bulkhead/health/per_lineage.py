"""Detector state per living lineage, of which the ones that were silent longest are forgotten.

In: acts. Out: what the state of their lineage says to them.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding

MAX_LINEAGES = 100_000


class LineageFold(Protocol):
    """State of one lineage."""

    def fold_act(self, act: Act) -> list[HealthFinding]:
        """The findings of an act."""


T = TypeVar("T", bound=LineageFold)


class LineageFolds(Generic[T]):
    """Every living lineage, each begun by its first act."""

    def __init__(self, begin: Callable[[], T]) -> None:
        self._begin = begin
        self._lineages = BoundedDict[str, T](MAX_LINEAGES)

    def fold_act(self, act: Act) -> list[HealthFinding]:
        """Fold one act."""
        state = self._lineages.get_refreshed(act.lineage)
        if state is None:
            state = self._lineages[act.lineage] = self._begin()
        return state.fold_act(act)

    def end_lineage(self, lineage: str) -> None:
        """Forget a lineage."""
        self._lineages.pop(lineage, None)

    def __len__(self) -> int:
        return len(self._lineages)
