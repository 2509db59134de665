"""The executor with its real tools over real HTTP; only the bus (blobs, budget) is a fake in memory."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from bulkhead.blobs import reference
from bulkhead.grants import Authority, Signer, Verifier, new_signing_seed
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.doer.protocol import Job, JobContext, Reservation
from bulkhead.runtime.errors import Deferred, JobRefused
from bulkhead.runtime.halts.live import OpenBreaker
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.plan import Delegation
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_services.tool_executor.boundary.gate import Gate
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.counter_server import CounterServer
from tests.open_policy import permitted
from tests.samples import sample

NOW = 1_800_000_000_000


class KeptBlobs:
    """Blobs in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, tenant: str, data: str | bytes, summary: str | None = None) -> ContentRef:
        raw = data.encode() if isinstance(data, str) else data
        ref = reference("tool_executor", raw, summary=summary)
        self.kept[ref.sha256] = raw
        return ref


@dataclass
class Desk:
    """An executor with everything that a test looks at."""

    doer: ToolExecutor
    seed: str = field(default_factory=new_signing_seed)
    blobs: KeptBlobs = field(default_factory=KeptBlobs)
    halt: Halt | None = None
    held: OpenBreaker | None = None
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    admissions: int = 1_000
    admission_takes_ms: int = 0
    wall_ms: int = 0
    now_unix_ms: int = NOW
    reservations: list[Reservation] = field(default_factory=list)

    def hands(self) -> JobContext:
        async def reserve(job, call_id, attempt, call, keep) -> Reservation:
            assert (call.purpose, call.resource, call.worst_case.tool_calls) == ("tool", job.request.tool, 1)
            if self.admissions <= 0:
                raise Deferred(500, "budget asks to wait")
            self.admissions -= 1
            self.now_unix_ms += self.admission_takes_ms
            until_ms = self.now_unix_ms + self.wall_ms if self.wall_ms else 0
            keep(held := Reservation(f"r{attempt}", call_id, call.worst_case, wall_until_unix_ms=until_ms))
            return held

        async def live(tenant, task, body) -> None:
            raise AssertionError("nothing is said live")

        hands = JobContext(
            blobs=self.blobs,  # type: ignore[arg-type]
            signer=Signer("tool_executor", self.seed),
            now_unix_ms=lambda: self.now_unix_ms,
            _reserve=reserve,
            _halts=SimpleNamespace(
                find=lambda target: self.halt,
                halt_event=lambda target, ends: self.ending if ends else self.cut,
                holding_breaker=lambda target, now_unix_ms: self.held,
            ),
            _live=live,
        )
        self.reservations = hands.reservations
        return hands

    async def call(self, tool: str, arguments: object = None, **job: object) -> ToolCallReplied:
        asked, hands = self.job(tool, arguments, **job), self.hands()
        try:
            async with self.doer.hold_turn(asked, hands) as turn:
                return await self.doer.act(asked, hands, turn)
        except JobRefused as refusal:
            return await self.doer.refusal_after_start(asked, refusal.failure)

    def job(
        self,
        tool: str,
        arguments: object = None,
        *,
        call_id: str = "c1",
        task: str = "t1",
        tenant: str = "acme",
        granted=None,
        task_tools=None,
        step="s1",
        attempt: int = 1,
        deadline_ms: int = 20_000,
        deliveries: int = 1,
        role: str = "",
        delegated: tuple[Delegation, ...] = (),
        sender: str = "worker",
    ) -> Job:
        tools = (tool,) if granted is None else granted
        request = ToolCallRequested(
            call_id=call_id,
            step_id="s1",
            attempt=attempt,
            tool=tool,
            deadline_unix_ms=NOW + deadline_ms,
            arguments_json=arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        )
        grant = sample(
            TaskGrant,
            tenant=tenant,
            task=task,
            tools=tools if task_tools is None else task_tools,
            delegated=delegated,
            expires_unix_ms=NOW + 10**6,
        )
        narrow = step and StepGrant(
            tenant=tenant,
            task=task,
            step_id=step,
            attempt=1,
            plan_version=1,
            tools=tools,
            expires_unix_ms=NOW + 10**6,
            role=role,
        )
        head = Envelope(id="e" * 32, type=request.ce_type(), source="worker", time_unix_ms=NOW)
        authority = Authority(grant, narrow or None, "token")
        return Job.from_message(
            ReceivedMessage(head, request, tenant, task, sender, 1, NOW, deliveries), request, authority, NOW
        )

    def text(self, reply: ToolCallReplied) -> str:
        assert reply.content is not None, reply.failure
        return self.blobs.kept[reply.content.sha256].decode()


def open_gate() -> Gate:
    """It permits everything, and needs no bus for that."""
    return Gate(SimpleNamespace(service="tool_executor", verifier=Verifier({})), permitted, lambda tool: "none", 60_000)  # type: ignore[arg-type]


@pytest.fixture
async def make_desk():
    """Desks with settings of their own."""
    made: list[Desk] = []

    def make(**knobs: object) -> Desk:
        settings = Settings(**{"retry_backoff_s": 0.01, **knobs})
        desk = Desk(ToolExecutor(load_registry(settings.configured_names()), ToolRunner(settings), open_gate()))
        made.append(desk)
        return desk

    yield make
    for desk in made:
        await desk.doer.stop()


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


@pytest.fixture
def counter() -> Iterator[CounterServer]:
    with CounterServer() as found:
        yield found


@pytest.fixture
def counting(make_desk: Callable[..., Desk], counter: CounterServer) -> Desk:
    return make_desk(counter_url=counter.url)
