"""The load of the mesh as a whole, for people who ask: services with replicas, lag and failures; rates of messages.

In: MeshRequested (rpc, from the gateway, which established who asks). Out: MeshReplied. Counts alone: an operator of
any tenant sees how busy the mesh is, and nothing of other tenants. Nothing is read for it: the watch has folded the
journal, and the broker was asked at its interval.
"""

from collections.abc import Callable, Mapping

from bulkhead.runtime.edge.protocol import Received
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.budget import MeshReplied, MeshRequested, MeshTrouble, MessageEdge, ServiceLoad
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import refused
from bulkhead_services.budget.watch.mesh_counts import Inbox, MeshCounts
from bulkhead_services.budget.watch.traffic import WINDOW_S, Traffic
from bulkhead_services.budget.watch.watcher import Watcher


class MeshLoad:
    """Answers from this replica's watch; None where it is switched off."""

    def __init__(self, watcher: Watcher | None, counts: MeshCounts, clock: Callable[[], int]) -> None:
        self._watcher, self._counts, self._clock = watcher, counts, clock

    async def answer(self, message: Received) -> MeshReplied:
        """As it stands at this moment."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, MeshRequested)
        if (failure := refused(body.requester, tenant, "see the load of the mesh")) is not None:
            return MeshReplied(failure=failure)
        if self._watcher is None:
            return _unavailable("the watch is switched off", "start budget with BULKHEAD_WATCH=on")
        letters = self._counts.letters
        if not self._watcher.caught_up or letters is None:
            return _unavailable("the watch still reads the journal, or the broker does not answer it", "ask again soon")
        return load(self._watcher.fold.traffic, self._counts.inboxes, letters, self._clock())


def load(traffic: Traffic, inboxes: Mapping[str, Inbox], letters: Mapping[str, int], now_unix_ms: int) -> MeshReplied:
    """The answer, from counts. Pure."""
    edges, failed, rejected = traffic.edges(now_unix_ms), traffic.failed(now_unix_ms), traffic.rejected(now_unix_ms)
    services = []
    for name in catalog.SERVICES:
        inbox, open_letters = inboxes.get(name), letters.get(name, 0)
        services.append(
            ServiceLoad(
                service=name,
                **(inbox._asdict() if inbox is not None else {}),
                received=sum(count for (_, to), count in edges.items() if to == name),
                failed=failed[name],
                rejected=rejected[name],
                dead_letters=open_letters,
                troubles=_troubles(inbox, failed[name] + rejected[name], open_letters),
            )
        )
    told = tuple(
        MessageEdge(sender=sender, receiver=to, messages=count)
        for (sender, to), count in sorted(edges.items())[: bounds.MAX_EDGES_LISTED]
    )
    return MeshReplied(services=tuple(services), edges=told, window_ms=WINDOW_S * 1000)


def _troubles(inbox: Inbox | None, failures: int, letters: int) -> tuple[MeshTrouble, ...]:
    lags = inbox is not None and inbox.pending > 0
    found: dict[MeshTrouble, bool] = {
        "no_replica": lags and inbox is not None and inbox.listens is False,
        "full": lags and inbox is not None and inbox.listens is None,
        "dead_letters": letters > 0,
        "failures": failures > 0,
    }
    return tuple(name for name, there in found.items() if there)


def _unavailable(what: str, hint: str) -> MeshReplied:
    return MeshReplied(failure=Failure.of("unavailable", what, hint))
