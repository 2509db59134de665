"""Which deleted sessions may go, with which tasks and contents; a bus in memory holds what was said."""

from collections.abc import Mapping
from typing import Any

from bulkhead.blobs import Blobs
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.clock import MachineClock
from bulkhead.bus.paging import stored_messages
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Result
from bulkhead_contracts.session import SessionDeleted, SessionOpened, TurnTaken
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import RequesterClaim, SessionTurn, TaskEnded, TaskLimits, TaskRejected, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_infra.nats import purge
from bulkhead_infra.nats.erasure import GATEWAY, QUIET_MS, SessionErasure
from tests.samples import sample

TENANT = "demo"
ANN = RequesterClaim(tenant=TENANT, person="ann", role="submitter", via="api_key")
BOB = ANN.model_copy(update={"person": "bob"})
SHORT = TaskLimits(deadline_ms=1_000, approval_wait_ms=0)
OPENED = SessionOpened(requester=ANN, limits=SHORT, opened_unix_ms=1, payload_sha256="0" * 64)
TURN = TurnTaken(number=1, task="t-1", text="q", person="ann", taken_unix_ms=1)
REFUSED = TaskRejected(code="foreign_id", message="m", hint="h")


class CountingClock(MachineClock):
    """Each look at it is a millisecond later."""

    def __init__(self) -> None:
        super().__init__()
        self._now_ms = 0

    def now_ms(self) -> int:
        self._now_ms += 1
        return self._now_ms


class Mesh:
    """Messages of a mesh, and the erasure that looks at them."""

    def __init__(self) -> None:
        self._broker, self.deleted = MemoryBroker.for_mesh(clock=CountingClock()), list[str]()
        self._buses: dict[str, MemoryBus] = {}
        self._count = 0

    def bus(self, name: str) -> MemoryBus:
        return self._buses.setdefault(name, MemoryBus(self._broker, name))

    async def say(self, author: str, to: str, task: str, *bodies: Body) -> None:
        for body in bodies:
            self._count += 1
            publisher = Publisher(author, self.bus(author), b"k" * 32, lambda: 1)
            await publisher.send(to, body, tenant=TENANT, task=task, index=f"{task}/{self._count}")

    async def hold_session(self, session: str, *turns: str, conversation: str = "", person: str = "ann") -> None:
        """A deleted session with these turns."""
        opened = OPENED.model_copy(update={"conversation": conversation})
        taken = (
            TURN.model_copy(update={"number": number, "task": task, "person": person})
            for number, task in enumerate(turns, 1)
        )
        await self.say("gateway", "gateway", session, opened, *taken, SessionDeleted(person="ann"))

    async def hold_task(self, task: str, requester: RequesterClaim = ANN, **options: Any) -> None:
        """A task that has ended."""
        request = TaskRequested(objective="q", requester=requester, **({"limits": SHORT} | options))
        await self.say("gateway", "gateway", task, request)
        await self.say("planner", "gateway", task, sample(TaskEnded, status="succeeded"))

    async def look(self, later_ms: int) -> tuple[SessionErasure, dict[str, list[str]]]:
        """What is due so long after the last message."""

        async def delete(operation: str, body: Mapping[str, object]) -> dict[str, Any]:
            if operation == f"STREAM.MSG.DELETE.{subjects.BLOBS_STREAM}":
                blobs = stored_messages(self.bus("operator"), subjects.BLOBS_STREAM, "blob.>")
                self.deleted += [blob.subject async for blob in blobs if blob.sequence == body["seq"]]
            return {}

        async def is_counted(_: tuple[str, str]) -> bool:
            return True

        erasure = SessionErasure(self.bus("operator"), delete, {}, purge._subjects_of_task, is_counted)
        due = await erasure.find_due(await self.last_unix_ms() + QUIET_MS + later_ms)
        return erasure, {session: [task for _, task in tasks] for (_, session), tasks in due.items()}

    async def last_unix_ms(self) -> int:
        messages = [stored async for stored in stored_messages(self.bus("operator"), GATEWAY, "mesh.>")]
        return max(stored.time_unix_ms for stored in messages)


async def test_a_session_waits_for_the_longest_limits_of_its_turns() -> None:
    for options in ({"turn": SessionTurn(session="s-gone", number=1)}, {"conversation": "s-gone"}):
        mesh = Mesh()
        limits = TaskLimits(deadline_ms=bounds.MAX_TASK_DEADLINE_MS)
        await mesh.hold_task("t-1", limits=limits, **options)
        await mesh.hold_session("s-gone", "t-1")
        assert (await mesh.look(bounds.MAX_TASK_DEADLINE_MS - 1_000))[1] == {}, "its grant still holds"
        assert (await mesh.look(bounds.MAX_TASK_DEADLINE_MS))[1] == {"s-gone": ["t-1"]}


async def test_a_lying_gateway_has_no_task_erased_that_was_submitted_by_itself() -> None:
    mesh = Mesh()
    await mesh.hold_task("t-bob", BOB)
    await mesh.hold_task("t-named", BOB, conversation="c")
    await mesh.hold_session("s-lie", "t-bob", "t-named", conversation="t-bob", person="bob")
    await mesh.hold_session("s-other", "t-named", conversation="c")
    await mesh.hold_session("s-own", "t-named", conversation="c", person="bob")
    assert (await mesh.look(2_000))[1] == {"s-lie": [], "s-other": [], "s-own": ["t-named"]}


async def test_a_refusal_under_a_sessions_id_neither_keeps_it_nor_ends_it() -> None:
    mesh = Mesh()
    await mesh.hold_session("s-gone")
    await mesh.say("pub_shop", "gateway", "s-gone", TaskRequested(objective="q"))
    await mesh.say("gateway", "gateway", "s-gone", REFUSED)
    await mesh.hold_task("t-1")
    await mesh.say("gateway", "gateway", "t-1", SessionDeleted(person="ann"))
    assert (await mesh.look(2_000))[1] == {"s-gone": []}, "t-1 is a task's name"
    # Of a session that goes on, the age is that of its own last fact.
    await mesh.say("gateway", "gateway", "s-live", OPENED)
    await mesh.say("pub_shop", "gateway", "s-live", TaskRequested(objective="q"))
    await mesh.say("gateway", "gateway", "s-live", REFUSED, TURN)
    last_unix_ms = await mesh.last_unix_ms()
    await mesh.say("gateway", "gateway", "s-live", REFUSED)
    due = [row async for page in purge._due_tasks(mesh.bus("operator"), last_unix_ms + 9) for row in page.items()]
    assert [unix_ms for task, unix_ms in due if task == (TENANT, "s-live")] == [last_unix_ms]


async def test_a_content_of_two_authors_stays_as_long_as_any_task_names_it() -> None:
    mesh = Mesh()
    text = "The documents do not say. " * 100
    worker, model = [await Blobs(mesh.bus(name), name).put(TENANT, text) for name in ("worker", "model_gateway")]
    await mesh.hold_task("t-1", turn=SessionTurn(session="s-gone", number=1))
    for task in ("t-1", "t-other"):
        for content in (worker, model):
            await mesh.say("worker", "planner", task, sample(StepFinished, result=Result(content=content, summary="x")))
    await mesh.hold_session("s-gone", "t-1")
    erasure, due = await mesh.look(2_000)
    assert due == {"s-gone": ["t-1"]}
    await erasure.erase({(TENANT, "s-gone"): [(TENANT, "t-1")]})
    assert mesh.deleted == []
