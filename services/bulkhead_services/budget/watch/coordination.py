"""The ties of a tenant's tasks now, for people who ask: what the watch of this replica holds in memory.

In: CoordinationRequested (rpc, from the gateway, which established who asks). Out: CoordinationReplied.
Nothing is read for it: the watch has folded the journal already.
"""

from collections.abc import Callable

from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.breakers.state_machine import BUCKETS
from bulkhead.health.thresholds import BreakerThresholds
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import BreakerWindow, CoordinationReplied, CoordinationRequested
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import check_reader
from bulkhead_services.budget.watch.open_waits import open_waits
from bulkhead_services.budget.watch.watcher import Watcher


class CoordinationQuery:
    """Answers for this replica's watch; None where it is switched off."""

    def __init__(self, watcher: Watcher | None, clock: Callable[[], int], thresholds: BreakerThresholds) -> None:
        self._watcher, self._clock, self._thresholds = watcher, clock, thresholds

    async def answer_coordination(self, message: ReceivedMessage) -> CoordinationReplied:
        """State at this moment."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, CoordinationRequested)
        if (
            failure := check_reader(body.requester, tenant, f"see how the tasks of {tenant} hang together")
        ) is not None:
            return CoordinationReplied(failure=failure)
        if self._watcher is None or not self._watcher.caught_up:
            reason = "the watch is switched off" if self._watcher is None else "the watch still reads the journal"
            hint = "start budget with BULKHEAD_WATCH=on" if self._watcher is None else "ask again in a moment"
            return CoordinationReplied(failure=Failure.from_text("unavailable", reason, hint))
        fold = self._watcher.fold
        if body.at_unix_ms:
            waits, left_out = fold.wait_minutes.waits_at(tenant, body.at_unix_ms)
        else:
            waits, left_out = open_waits(fold.watch.graph, tenant)
        windows = breaker_windows(fold.watch.breakers, tenant, self._clock(), self._thresholds)
        return CoordinationReplied(
            waits=waits,
            more_waits=left_out,
            trips=fold.recent.trips_of(tenant),
            windows=windows,
            minutes=fold.wait_minutes.minutes_of(tenant),
            changes=fold.control_changes.changes_of(tenant),
        )


def breaker_windows(
    breakers: BreakerRegistry, tenant: str, now_unix_ms: int, thresholds: BreakerThresholds
) -> tuple[BreakerWindow, ...]:
    """Counts of a tenant's breakers within their window, those with the most failures first."""
    first = now_unix_ms * BUCKETS // thresholds.window_ms - BUCKETS
    windows = []
    for (scope, owner, name), breaker in breakers.states.items():
        buckets = [bucket for bucket in breaker.buckets if bucket.number > first]
        if tenant not in (owner, name if scope == "tenant" else "") or not buckets:
            continue
        calls, failed, slow = (sum(getattr(bucket, part) for bucket in buckets) for part in ("calls", "failed", "slow"))
        windows.append(
            BreakerWindow(
                scope=scope,  # type: ignore[arg-type]
                name=name[: bounds.MAX_NAME_CHARS],
                phase=breaker.phase,
                calls=calls,
                failed=failed,
                slow=slow,
                window_ms=thresholds.window_ms,
            )
        )
    windows.sort(key=lambda one: (-one.failed, -one.calls, one.scope, one.name))
    return tuple(windows[: bounds.MAX_WINDOWS_LISTED])
