"""The load of the mesh: rates and failures of the last minute, replicas as the broker tells them, who may ask."""

from types import SimpleNamespace

import pytest

from bulkhead.bus.port import DurableCounts, StoredMessage
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import MeshReplied, MeshRequested
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import RequesterClaim, TaskEnded
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch.mesh_counts import QUIET_MS, InboxLoad, inbox_of
from bulkhead_services.budget.watch.mesh_load import MeshLoadQuery, build_mesh_reply
from bulkhead_services.budget.watch.traffic import SECONDS, WINDOW_S, Traffic

NOW = 1_800_000_000_000
SECOND = 1_000
IDLE, BUSY = QUIET_MS + 1, 10


def say(traffic: Traffic, at_ms: int, sender: str, to: str, body: Body | type[Body] = StepAssigned) -> None:
    raw = body.encode() if isinstance(body, Body) else b"{}"
    traffic.fold_message(body.TYPE, StoredMessage(f"mesh.{sender}.{to}.3.demo.t1.-", {}, raw, 1, at_ms))


def finished(standing: str) -> StepFinished:
    return StepFinished(step_id="s1", attempt=1, plan_version=1, result=Result(standing=standing))  # type: ignore[arg-type]


def test_messages_of_the_last_minute_are_counted_by_edge_and_older_ones_no_more() -> None:
    traffic = Traffic()
    say(traffic, NOW - WINDOW_S * SECOND, "planner", "worker")
    for at_ms in (NOW - (WINDOW_S - 1) * SECOND, NOW, NOW):
        say(traffic, at_ms, "planner", "worker")
    say(traffic, NOW - SECOND, "pub_acme", "gateway")
    say(traffic, NOW - SECOND, "pub_rival", "gateway")
    assert traffic.recent_edges(NOW) == {("planner", "worker"): 3, ("publisher", "gateway"): 2}, "publishers are one"
    assert traffic.recent_edges(NOW + WINDOW_S * SECOND) == {}
    say(traffic, NOW + SECONDS * SECOND, "planner", "worker")
    say(traffic, NOW, "planner", "worker")
    assert traffic.recent_edges(NOW + SECONDS * SECOND) == {("planner", "worker"): 1}, (
        "its second has another one's place"
    )


def test_failures_are_told_by_author_and_a_word_in_a_text_is_none() -> None:
    traffic = Traffic()
    reply = {"call_id": "c1", "step_id": "s1", "prompt_id": "p", "standing_reason": 'it said "outcome":"failed" once'}
    bodies = [
        ("model_gateway", "worker", ModelCallReplied(outcome="answered", **reply)),  # type: ignore[arg-type]
        ("model_gateway", "worker", ModelCallReplied(outcome="failed", **reply)),  # type: ignore[arg-type]
        ("worker", "planner", finished("failed")),
        ("worker", "planner", finished("degraded")),
        ("planner", "gateway", TaskEnded(status="failed")),
        ("planner", "doors", TaskEnded(status="failed")),
        ("rag", "rag", MessageRejected),
        ("worker", "planner", StepFinished),
    ]
    for sender, to, body in bodies:
        say(traffic, NOW, sender, to, body)
    assert traffic.failed_counts(NOW) == {"model_gateway": 1, "worker": 1, "planner": 1}, (
        "an end that two are told is one"
    )
    assert traffic.rejected_counts(NOW) == {"rag": 1}
    traffic.fold_message(
        StepFinished.TYPE, StoredMessage("mesh.worker.planner.3.demo.t1.-", {}, b'{"result": "failed', 1, NOW)
    )
    assert traffic.failed_counts(NOW)["worker"] == 1, "what cannot be read is no result"


@pytest.mark.parametrize(
    ("shards", "replicas", "listens"),
    [
        ([(0, 0, 2, IDLE)], 2, True),
        ([(0, 0, 2, IDLE), (3, 1, 5, BUSY)], 2, True),
        ([(0, 1, 3, BUSY)], None, True),
        ([(0, 0, 3, BUSY)], None, True),
        ([(4, 0, 0, BUSY)], 0, False),
        ([(4, 2, 0, BUSY)], None, None),
    ],
    ids=["idle", "one shard is idle", "busy", "just now", "nobody", "full or gone"],
)
def test_replicas_are_counted_where_the_broker_tells_them(shards, replicas, listens) -> None:
    found = inbox_of([DurableCounts(*one) for one in shards])
    assert (found.replicas, found.listens) == (replicas, listens)
    assert found.pending == sum(one[0] for one in shards)


def test_troubles_are_named_and_a_service_that_sleeps_without_work_has_none() -> None:
    traffic = Traffic()
    say(traffic, NOW, "checker", "checker", MessageRejected)
    inboxes = {
        "worker": InboxLoad(4, 0, 0, False),
        "rag": InboxLoad(0, 0, 0, False),
        "model_gateway": InboxLoad(2, 8, None, None),
        "planner": InboxLoad(3, 1, None, True),
    }
    told = build_mesh_reply(traffic, inboxes, {"gateway": 1}, NOW)
    found = {one.service: one for one in told.services}
    assert tuple(found) == catalog.SERVICES
    assert {name: one.troubles for name, one in found.items() if one.troubles} == {
        "worker": ("no_replica",),
        "model_gateway": ("full",),
        "gateway": ("dead_letters",),
        "checker": ("failures",),
    }
    assert (found["signer"].replicas, found["signer"].listens, found["signer"].pending) == (None, None, None)
    assert found["checker"].received == 1 and told.window_ms == 60_000


def ask(role: str, tenant: str = "demo") -> ReceivedMessage:
    body = MeshRequested(requester=RequesterClaim(tenant=tenant, person="ann", role=role, via="api_key"))  # type: ignore[arg-type]
    return ReceivedMessage(None, body, "demo", "x", "gateway", 1, NOW, receiver="budget")  # type: ignore[arg-type]


async def answer(message: ReceivedMessage, watcher: object, letters: dict[str, int] | None) -> MeshReplied:
    counts = SimpleNamespace(open_dead_letters=letters, inboxes={})
    return await MeshLoadQuery(watcher, counts, lambda: NOW).answer_mesh_load(message)  # type: ignore[arg-type]


async def test_who_may_not_see_it_or_asks_too_early_hears_why() -> None:
    watcher = SimpleNamespace(caught_up=True, fold=SimpleNamespace(traffic=Traffic()))
    early = SimpleNamespace(caught_up=False)
    cases = [(ask("submitter"), watcher, {}, "forbidden"), (ask("operator", "other"), watcher, {}, "forbidden")]
    cases += [
        (ask("auditor"), one, letters, "unavailable") for one, letters in ((None, {}), (early, {}), (watcher, None))
    ]
    for message, one, letters, code in cases:
        reply = await answer(message, one, letters)  # type: ignore[arg-type]
        assert reply.failure is not None and reply.failure.code == code and reply.failure.hint
    reply = await answer(ask("auditor"), watcher, {})
    assert reply.failure is None and len(reply.services) == len(catalog.SERVICES)
