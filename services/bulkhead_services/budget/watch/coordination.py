"""The ties of a tenant's tasks now, for people who ask: what the watch of this replica holds in memory.

In: CoordinationRequested (rpc, from the gateway, which established who asks). Out: CoordinationReplied.
Nothing is read for it: the watch has folded the journal already.
"""

from collections.abc import Callable

from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.breakers.state_machine import BUCKETS
from bulkhead.health.deadlock.wait_graph import WaitGraph
from bulkhead.health.sources.journal_waits import party_label
from bulkhead.health.thresholds import BreakerThresholds
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import BreakerWindow, CoordinationReplied, CoordinationRequested, OpenWait
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import check_reader
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
        waits, left_out = open_waits(fold.watch.graph, tenant)
        windows = breaker_windows(fold.watch.breakers, tenant, self._clock(), self._thresholds)
        return CoordinationReplied(
            waits=waits, more_waits=left_out, trips=fold.recent.trips_of(tenant), windows=windows
        )


def open_waits(graph: WaitGraph, tenant: str) -> tuple[tuple[OpenWait, ...], int]:
    """The open waits of a tenant's tasks, and how many are left out: those who are stuck come first."""
    waits = [wait for wait in list(graph.waits.values()) if wait.task.startswith(f"{tenant}/")]
    waits.sort(key=lambda one: (one.waiter not in graph.stuck, one.task, one.key))
    listed = waits[: bounds.MAX_WAITS_LISTED]
    rows = tuple(
        OpenWait(
            kind=wait.key.partition("/")[0],
            task=wait.task.partition("/")[2],
            waiter=party_label(wait.waiter)[: bounds.MAX_SUMMARY_CHARS],
            targets=tuple(
                party_label(target)[: bounds.MAX_SUMMARY_CHARS]
                for target in wait.targets[: bounds.MAX_WAIT_TARGETS_LISTED]
            ),
            mode=wait.mode,
            stuck=wait.waiter in graph.stuck,
            until_unix_ms=graph.until.get(wait.key, 0),
        )
        for wait in listed
    )
    return rows, len(waits) - len(listed)


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
