"""The last halts, lifts and resets of each tenant's people, for people who ask. Pure.

In: facts `Switched` and `BreakerReset` of the journal. Out: changes, the newest first. A watch that starts remembers
what it reads again.
"""

from collections import deque

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.halts.operator import EVERYBODY
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import ControlChange
from bulkhead_contracts.control import BreakerReset, Halt, Switched

MAX_TENANTS = 1_000
OWN = "budget"
"""Who halts what a detector or a ceiling stopped: no person."""


class RecentControlChanges:
    """Changes by tenant; those of what all tenants share are everybody's."""

    def __init__(self) -> None:
        self._changes = BoundedDict[str, deque[ControlChange]](MAX_TENANTS)

    def fold_fact(self, kind: str, stored: StoredMessage) -> None:
        """One fact; what cannot be read tells nothing, and a repeated one nothing new. kind: its type."""
        try:
            if kind == Switched.TYPE:
                change = _change_of_halt(Switched.model_validate_json(stored.body).halt, stored.time_unix_ms)
            else:
                change = _change_of_reset(BreakerReset.model_validate_json(stored.body), stored.time_unix_ms)
        except ValueError:
            return
        if change.by == OWN:
            return
        changes = self._changes.setdefault(stored.tenant, deque(maxlen=bounds.MAX_CONTROL_CHANGES))
        if change not in changes:
            changes.append(change)

    def changes_of(self, tenant: str) -> tuple[ControlChange, ...]:
        """The newest first, with those that concern everybody."""
        changes = [*self._changes.get(tenant, ()), *self._changes.get(EVERYBODY, ())]
        return tuple(sorted(changes, key=lambda change: -change.at_unix_ms))[: bounds.MAX_CONTROL_CHANGES]


def _change_of_halt(halt: Halt, at_unix_ms: int) -> ControlChange:
    return ControlChange(
        act="halted" if halt.active else "resumed",
        scope=halt.scope,
        name=halt.known_as[: bounds.MAX_SUMMARY_CHARS],
        by=halt.by,
        reason=halt.reason,
        at_unix_ms=halt.at_unix_ms or at_unix_ms,
    )


def _change_of_reset(reset: BreakerReset, at_unix_ms: int) -> ControlChange:
    breaker = reset.breaker
    return ControlChange(
        act="reset",
        scope=breaker.scope,
        name=breaker.known_as[: bounds.MAX_SUMMARY_CHARS],
        by=breaker.by,
        reason=reset.reason,
        at_unix_ms=breaker.since_unix_ms or at_unix_ms,
    )
