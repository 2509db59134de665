"""A deleted session leaves with the tasks of its turns and their contents, byte for byte, on a real nats-server."""

from functools import partial
from pathlib import Path

import pytest

from bulkhead.blobs import BlobMissing, Blobs
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import ContentRef, Result, Usage
from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, SessionSummary, TurnTaken
from bulkhead_contracts.task import RequesterClaim, SessionTurn, TaskEnded, TaskLimits, TaskRejected, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_infra.nats import erasure
from bulkhead_infra.nats import purge as purging
from bulkhead_infra.nats.purge import PurgeError, Retention, purge
from tests.integration.broker.test_purge import TENANT, buses, live_through, settled
from tests.integration.broker.test_purge_checkpoints import maker
from tests.integration.permissions.broker import Broker
from tests.samples import sample

MARKER = "zanzibar-4711"
LONG = f"I live in {MARKER}. " + "word " * 200
SHORT = TaskLimits(deadline_ms=1, approval_wait_ms=0)
ANN = RequesterClaim(tenant=TENANT, person="ann", role="submitter", via="api_key")


async def say(bus: JetStreamBus, author: str, to: str, task: str, body: Body, index: str = "") -> None:
    publisher = Publisher(author, bus, b"k" * 32, lambda: 1)
    await publisher.send(to, body, tenant=TENANT, task=task, index=f"{task}/{body.ce_type()}/{index}")


def turn_of(task: str, number: int, **more: object) -> TurnTaken:
    return TurnTaken(number=number, task=task, text=MARKER, person="ann", taken_unix_ms=1, **more)


async def hold_turn(of, session: str, task: str, content: ContentRef, conversation: str = "") -> None:
    """A turn's task, with messages in every stream; it has ended. Without a session it was submitted by itself."""
    turn = SessionTurn(session=session, number=1) if session else None
    options = {"limits": SHORT, "turn": turn, "conversation": conversation}
    request = TaskRequested(objective=f"Where is {MARKER}?", requester=ANN, **options)
    await say(await of("gateway"), "gateway", "gateway", task, request)
    await live_through(of, task)
    result = Result(content=content, summary=f"in {MARKER}")
    await say(await of("planner"), "planner", "gateway", task, sample(TaskEnded, status="succeeded", result=result))


async def hold_session(of, session: str, content: ContentRef, *tasks: str, deleted: bool = True) -> None:
    gateway = await of("gateway")
    digest = "0" * 64
    opened = SessionOpened(requester=ANN, title=MARKER, limits=SHORT, opened_unix_ms=1, payload_sha256=digest)
    facts: list[Body] = [opened, FactPinned(fact_id="home", text=MARKER, person="ann", pinned_unix_ms=1)]
    for number, task in enumerate(tasks):
        summary = SessionSummary(task=task, through=1, text=MARKER) if number else None
        facts.append(turn_of(task, number + 1, summary=summary))
        await hold_turn(of, session, task, content)
    for number, fact in enumerate(facts):
        await say(gateway, "gateway", "gateway", session, fact, str(number))
    if deleted:
        await say(gateway, "gateway", "gateway", session, SessionDeleted(person="ann"))


def count_on_disk(folder: Path, text: str) -> int:
    return sum(path.read_bytes().count(text.encode()) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "QUIET_MS", 0)


async def make_counted(of) -> None:
    """A checkpoint of the ledger that has counted all replies."""
    assert await maker(await of("budget")).make_checkpoint(at_once=True)


@pytest.mark.slow
async def test_a_deleted_session_leaves_no_byte_however_often_it_is_cut_off(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with buses(broker) as of:
        gateway, rag = Blobs(await of("gateway"), "gateway"), Blobs(await of("rag"), "rag")
        own, shared = await gateway.put(TENANT, LONG), await gateway.put(TENANT, "shared " * 200)
        passage = await rag.put(TENANT, "a passage of a document")
        await hold_session(of, "s-gone", own, "t-1", "t-2")
        for number, content in enumerate((shared, passage)):
            await hold_turn(of, "s-gone", f"t-{number + 3}", content)
            fact = turn_of(f"t-{number + 3}", number + 3)
            # Deleted already: such a fact of a writer that was late names its task all the same.
            await say(await of("gateway"), "gateway", "gateway", "s-gone", fact, f"late/{number}")
        await hold_turn(of, "", "t-5", own, conversation="s-gone")
        await say(await of("gateway"), "gateway", "gateway", "s-gone", turn_of("t-5", 5), "adopted")
        # A publisher asked under the session's id, and the gateway refused it.
        refused = TaskRejected(code="foreign_id", message="x", hint="x")
        await say(await of("gateway"), "gateway", "gateway", "s-gone", refused)
        other = sample(TaskEnded, status="succeeded", result=Result(content=shared, summary="other"))
        await say(await of("planner"), "planner", "gateway", "t-other", other)
        await settled(broker)
        assert count_on_disk(tmp_path, MARKER) > 10
        request_api, left = purging._request_api, 0

        async def cut_off(*args: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise PurgeError("kill -9")
            return await request_api(*args)

        monkeypatch.setattr(purging, "_request_api", cut_off)
        run = partial(purge, broker.url, broker.seed, Retention())
        for attempt in range(100):
            left = 60 + attempt % 7
            try:
                await run()
                break
            except PurgeError as error:
                assert "kill -9" in str(error)
        assert 2 < attempt < 99, "it was cut off, and came to its end"
        after = await settled(broker)
        assert not {task for tasks in after.values() for task in tasks} & {
            f"{TENANT}/{name}" for name in ("s-gone", "t-1", "t-2", "t-3", "t-4")
        }
        assert count_on_disk(tmp_path, MARKER) == 0
        assert await Blobs(await of("worker"), "worker").get(TENANT, shared)
        assert await Blobs(await of("worker"), "worker").get(TENANT, passage)
        with pytest.raises(BlobMissing):
            await Blobs(await of("worker"), "worker").get(TENANT, own)
        left = 10_000
        assert (await run()).tasks == 0, "nothing is left to do"


@pytest.mark.slow
async def test_what_a_deletion_does_not_reach_stays(broker: Broker) -> None:
    """A turn that has not ended, one whose cost no checkpoint counts, another's task, a fact under a task's name."""
    async with buses(broker) as of:
        gateway, planner = await of("gateway"), await of("planner")
        content = await Blobs(gateway, "gateway").put(TENANT, LONG)
        await hold_session(of, "s-gone", content, "t-1")
        used = Settled(reservation_id="r1", call_id="c", usage=Usage(input_tokens=7))
        reply = CallDeferred(call_id="c", after_ms=1, settled=(used,))
        await say(await of("model_gateway"), "model_gateway", "worker", "t-1", reply)
        await settled(broker)
        assert (await purge(broker.url, broker.seed, Retention())).tasks == 0, "no checkpoint has counted it"
        await hold_turn(of, "", "t-other", content)
        fact = turn_of("t-other", 2, begun_summary="t-live")
        await say(gateway, "gateway", "gateway", "s-gone", fact, "lie")
        await say(gateway, "gateway", "gateway", "t-other", SessionDeleted(person="ann"))
        unreadable = subjects.mesh_subject("gateway", "gateway", TENANT, "s-unreadable")
        for kind in (SessionOpened, SessionDeleted):
            await gateway.publish(unreadable, b"{", {"ce-type": kind.ce_type()}, kind.TYPE)
        turn = SessionTurn(session="s-gone", number=3)
        live = TaskRequested(objective="x", requester=ANN, limits=SHORT, turn=turn)
        await say(gateway, "gateway", "gateway", "t-live", live)
        await settled(broker)
        await make_counted(of)
        assert (await purge(broker.url, broker.seed, Retention())).tasks == 0, "its summary goes on"
        await say(planner, "planner", "gateway", "t-live", sample(TaskEnded, status="succeeded"))
        await settled(broker)
        await make_counted(of)
        assert (await purge(broker.url, broker.seed, Retention(), dry_run=True)).tasks == 3
        assert (await purge(broker.url, broker.seed, Retention())).tasks == 3
        assert f"{TENANT}/t-other" in (await settled(broker))["INBOX_WORKER"], "it is nobody's turn"
        assert await Blobs(await of("worker"), "worker").get(TENANT, content), "t-other names it, too"
