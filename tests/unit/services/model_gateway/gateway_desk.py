"""The model gateway under the real shell and an in-memory bus, beside a scripted provider and a purse that says yes.

Enters: settings and requests. Leaves: replies, settlements, live text.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from bulkhead.bus.port import LiveSubscription
from bulkhead.runtime.component import Component
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.control import Halt
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part, TextDelta
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.types import Body
from bulkhead_services.model_gateway.app import build
from bulkhead_services.model_gateway.settings import Settings
from tests.samples import sample
from tests.settlements import settlements
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

TENANT, TASK = "demo", "t1"
PRICED = "offline-rules-1"
KEY = "sk-test-0123456789abcdef"
Decision = Literal["reserved", "refused", "wait"]
T = TypeVar("T")
DEADLINE_S = 15.0


class Purse(EdgeComponent):
    """A budget that answers as told and keeps what it is asked."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.delay_s, self.wall_ms = 0.0, 0
        self.asked: list[ReserveRequested] = []
        self.rpc = {ReserveRequested: self.reserve}

    async def reserve(self, received: ReceivedMessage) -> Body:
        assert isinstance(received.body, ReserveRequested)
        self.asked.append(received.body)
        await asyncio.sleep(self.delay_s)
        decision: Decision = self.decisions.pop(0) if self.decisions else "reserved"
        return ReserveReplied(
            reservation_id=received.body.reservation_id,
            decision=decision,
            reason="because",
            retry_after_ms=10,
            wall_ms=self.wall_ms,
        )

    async def handle_message(self, message: ReceivedMessage) -> None:
        """What is settled lies in the streams."""


class Desk:
    """What a test holds in its hands."""

    def __init__(self, mesh: MemoryMesh, provider: ScriptedProvider, purse: Purse) -> None:
        self.mesh, self.provider, self.purse = mesh, provider, purse
        self._asked = 0

    def now_ms(self) -> int:
        return self.mesh.context("worker").clock()

    async def store(self, text: str, author: str = "rag") -> ContentRef:
        return await self.mesh.context(author).blobs.put(TENANT, text)

    async def text(self, ref: ContentRef | None) -> str:
        assert ref is not None
        return await self.mesh.context("worker").blobs.get_text(TENANT, ref)

    def request(self, **more: Any) -> ModelCallRequested:
        defaults: dict[str, Any] = {
            "call_id": "c1",
            "step_id": "s",
            "prompt_id": "worker.step",
            "parts": (Part(kind="step", text="Say hello."),),
            "deadline_unix_ms": self.now_ms() + 10_000,
        }
        return ModelCallRequested(**{**defaults, **more})

    def grant(self, step_id: str | None = "s", attempt: int = 1) -> str:
        top = sample(TaskGrant, tenant=TENANT, task=TASK, tools=("calculate",), document_scopes=("default",))
        token = self.mesh.context("signer").signer.sign_grant(top)
        if step_id is None:
            return token
        given = {"step_id": step_id, "attempt": attempt, "tools": ("calculate",)}
        step = sample(StepGrant, tenant=TENANT, task=TASK, **given)
        return self.mesh.context("planner").signer.sign_grant(step, parent=token)

    async def send(self, request: ModelCallRequested, sender: str = "worker", grant: str | None = None) -> None:
        self._asked += 1
        await self.mesh.context(sender).publisher.send(
            "model_gateway",
            request,
            tenant=TENANT,
            task=TASK,
            cause=f"x{self._asked}",
            index=0,
            grant=self.grant(attempt=request.attempt) if grant is None else grant,
        )

    async def ask(self, request: ModelCallRequested | None = None, sender: str = "worker", **more: Any) -> Any:
        """Send a request and return the next reply to that sender (a ModelCallReplied or a CallDeferred)."""
        before = len(await self.heard(sender))
        await self.send(request or self.request(), sender, **more)
        return (await self.replies(before + 1, sender))[before]

    async def answered(self, request: ModelCallRequested | None = None) -> ModelCallReplied:
        reply = await self.ask(request)
        assert isinstance(reply, ModelCallReplied) and reply.outcome == "answered", reply
        return reply

    async def heard(self, sender: str = "worker") -> list[Body]:
        found = await self.mesh.messages(subjects.inbox_stream(sender), f"mesh.model_gateway.{sender}.>")
        return [catalog.decode_body(one.ce_type, one.body) for one in found]

    async def replies(self, count: int, sender: str = "worker") -> list[Body]:
        return await until(lambda: self.heard(sender), lambda found: len(found) >= count)

    async def settled(self, count: int) -> list[Settled]:
        """Settlements in the order of their reservations."""
        found = await until(lambda: settlements(self.mesh), lambda all_: len(all_) >= count)
        order = [one.reservation_id for one in self.purse.asked]
        assert len(found) == count, found
        return sorted(found, key=lambda one: order.index(one.reservation_id))

    async def live(self) -> LiveSubscription:
        return await self.mesh.context("gateway").bus.subscribe_live(
            subjects.live_subject("model_gateway", TENANT, TASK)
        )

    async def halt(self, scope: str = "task", name: str = TASK, **more: bool) -> None:
        tenant, name = TENANT if scope == "task" else "", subjects.as_token(name)
        body = Halt(scope=scope, tenant=tenant, name=name, code="ceiling", reason="enough", by="budget", **more)  # type: ignore[arg-type]
        bus = self.mesh.context("budget").bus
        key = subjects.halt_key(scope, tenant, name)
        await bus.publish(key, body.model_dump_json().encode(), {}, f"halt-{name}-{sorted(more.items())}")


async def until(read: Callable[[], Awaitable[T]], done: Callable[[T], bool]) -> T:
    """Read again and again until it is done; a deadline makes it fail."""
    async with asyncio.timeout(DEADLINE_S):
        while not done(found := await read()):
            await asyncio.sleep(0.003)
        return found


async def deltas(live: LiveSubscription, text: str) -> list[TextDelta]:
    """Live deltas until the last attempt's text is whole."""
    found: list[TextDelta] = []
    async with asyncio.timeout(DEADLINE_S):
        async for one in live:
            found.append(TextDelta.model_validate_json(one.body))
            if found[-1].offset == 0:
                said = ""
            assert found[-1].offset == len(said), "a gap within an attempt"
            said += found[-1].text
            if said == text:
                return found
    raise AssertionError("the live stream ended")


@asynccontextmanager
async def desk(
    provider: ScriptedProvider, ack_wait_ms: int = 5_000, unchecked: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Desk]:
    """A running gateway before this provider; fast retries unless told otherwise. unchecked: past the settings."""
    given: dict[str, Any] = {
        "openai_api_key": KEY,
        "openai_base_url": provider.url,
        "model": PRICED,
        "backoff_first_ms": 5,
        "backoff_cap_ms": 20,
        "stall_timeout_s": 5.0,
        **settings,
    }
    purse = Purse()
    chosen = Settings(**given).model_copy(update=unchecked or {})
    builds = {"model_gateway": lambda context: build(context, chosen), "budget": lambda context: purse}
    async with MemoryMesh(builds, ack_wait_ms=ack_wait_ms) as mesh:
        yield Desk(mesh, provider, purse)
        component = mesh.running[("model_gateway", "0")].service.component
        assert isinstance(component, Component)
        await component.stop()
