"""The load of the mesh as a whole, for people who ask: services with replicas, lag and failures; rates of messages.

In: MeshRequested (rpc, from the gateway, which established who asks). Out: MeshReplied. Counts alone: an operator of
any tenant sees how busy the mesh is, and nothing of other tenants. Nothing is read for it: the watch has folded the
journal, and the broker was asked at its interval.
"""

from collections.abc import Callable, Mapping

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.budget import MeshReplied, MeshRequested, MeshTrouble, MessageEdge, ServiceLoad
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import check_reader
from bulkhead_services.budget.watch.mesh_counts import InboxLoad, MeshCounts
from bulkhead_services.budget.watch.traffic import WINDOW_S, Traffic
from bulkhead_services.budget.watch.watcher import Watcher


class MeshLoadQuery:
    """Answers from this replica's watch; None where it is switched off."""

    def __init__(self, watcher: Watcher | None, counts: MeshCounts, clock: Callable[[], int]) -> None:
        self._watcher, self._counts, self._clock = watcher, counts, clock

    async def answer_mesh_load(self, message: ReceivedMessage) -> MeshReplied:
        """Load at this moment."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, MeshRequested)
        if (failure := check_reader(body.requester, tenant, "see the load of the mesh")) is not None:
            return MeshReplied(failure=failure)
        if self._watcher is None:
            return _unavailable_reply("the watch is switched off", "start budget with BULKHEAD_WATCH=on")
        letters = self._counts.open_dead_letters
        if not self._watcher.caught_up or letters is None:
            return _unavailable_reply(
                "the watch still reads the journal, or the broker does not answer it", "ask again soon"
            )
        return build_mesh_reply(self._watcher.fold.traffic, self._counts.inboxes, letters, self._clock())


def build_mesh_reply(
    traffic: Traffic, inboxes: Mapping[str, InboxLoad], letters: Mapping[str, int], now_unix_ms: int
) -> MeshReplied:
    """The answer, from counts. Pure."""
    edges, failed, rejected = (
        traffic.recent_edges(now_unix_ms),
        traffic.failed_counts(now_unix_ms),
        traffic.rejected_counts(now_unix_ms),
    )
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
                troubles=_service_troubles(inbox, failed[name] + rejected[name], open_letters),
            )
        )
    edge_rows = tuple(
        MessageEdge(sender=sender, receiver=to, messages=count)
        for (sender, to), count in sorted(edges.items())[: bounds.MAX_EDGES_LISTED]
    )
    return MeshReplied(services=tuple(services), edges=edge_rows, window_ms=WINDOW_S * 1000)


def _service_troubles(inbox: InboxLoad | None, failures: int, letters: int) -> tuple[MeshTrouble, ...]:
    lags = inbox is not None and inbox.pending > 0
    troubles: dict[MeshTrouble, bool] = {
        "no_replica": lags and inbox is not None and inbox.listens is False,
        "full": lags and inbox is not None and inbox.listens is None,
        "dead_letters": letters > 0,
        "failures": failures > 0,
    }
    return tuple(name for name, present in troubles.items() if present)


def _unavailable_reply(what: str, hint: str) -> MeshReplied:
    return MeshReplied(failure=Failure.from_text("unavailable", what, hint))
