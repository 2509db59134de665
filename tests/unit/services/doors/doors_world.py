"""Real doors over an in-memory bus, beside a gateway, a planner and a model gateway that do as they are told.

In: calls of agents. Out: what those three were asked, and what was stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import AllowanceReplied, AllowanceRequested
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, ModelsReplied, ModelsRequested, TextDelta
from bulkhead_contracts.result import ContentRef, Failure, Usage
from bulkhead_contracts.step import StepAssigned, StepFinished, StepPaused
from bulkhead_contracts.task import PlaceGranted, PlaceTaken, RequesterClaim, TaskEnded, TaskRequested, TaskStatus
from bulkhead_contracts.types import Body
from bulkhead_services.doors.port import Caller, ParsedModelCall, StoredCall
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings

TENANT, PERSON = "demo", "ann"
CLAIM = RequesterClaim(tenant=TENANT, person=PERSON, role="submitter", via="api_key")


def caller(**more: Any) -> Caller:
    return Caller(**{"claim": CLAIM, "token": "", **more})


def asked(*said: str, **more: Any) -> ParsedModelCall:
    messages = tuple({"role": "user", "content": text} for text in said or ("hello",))
    given: dict[str, Any] = {
        "model": "default",
        "messages": messages,
        "options": {},
        "max_output_tokens": None,
        "stream": False,
    }
    return ParsedModelCall(**{**given, **more})


class Gateway(EdgeComponent):
    """Takes tasks in for the planner too: hands each adopted step out at once."""

    def __init__(self, context: Context) -> None:
        self.context, self.away, self.rejection = context, False, None
        self.requested: list[tuple[str, TaskRequested]] = []
        self.wanted: list[PlaceTaken] = []
        self.has_places = True
        self.planner: Context | None = None
        self.signer: Context | None = None

    async def handle_message(self, message: ReceivedMessage) -> None:
        if isinstance(message.body, PlaceTaken):
            self.wanted.append(message.body)
            if self.has_places:
                await self.context.publisher.send("doors", PlaceGranted(), **message.cause_fields, index="again")
        if not isinstance(message.body, TaskRequested):
            return
        if self.away:
            raise HandBack(0.05, "away")
        self.requested.append((message.task, message.body))
        if self.rejection is not None:
            await self.context.publisher.send("doors", self.rejection, **message.cause_fields, index="rejected")
            return
        request, assert_plan = message.body, message.body.plan
        assert assert_plan is not None and self.planner is not None and self.signer is not None
        until = self.context.clock() + request.limits.deadline_ms
        top = TaskGrant(
            tenant=message.tenant,
            task=message.task,
            actor=PERSON,
            tools=(),
            document_scopes=(),
            limits=request.limits,
            day_cost_usd_micros=1,
            day_tokens=1,
            expires_unix_ms=until + 60_000,
        )
        step = assert_plan.steps[0]
        narrow = StepGrant(
            tenant=message.tenant,
            task=message.task,
            step_id=step.id,
            attempt=1,
            plan_version=1,
            tools=(),
            expires_unix_ms=until + 60_000,
            role=step.role,
        )
        token = self.planner.signer.sign_grant(narrow, parent=self.signer.signer.sign_grant(top))
        objective = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
        assigned = StepAssigned(step=step, attempt=1, plan_version=1, objective=objective, deadline_unix_ms=until)
        assert message.body.requester is not None
        await self.planner.publisher.send(
            "doors", assigned, **message.cause_fields, index=0, actor=message.body.requester.person, grant=token
        )


class Planner(EdgeComponent):
    """Ends a task when its step is finished."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.finished: list[tuple[str, StepFinished]] = []
        self.paused: list[StepPaused] = []

    async def handle_message(self, message: ReceivedMessage) -> None:
        if isinstance(message.body, StepPaused):
            self.paused.append(message.body)
        elif isinstance(message.body, StepFinished):
            self.finished.append((message.task, message.body))
            await self.end(message.task, "failed" if message.body.failure else "succeeded", message.body.failure)

    async def end(self, task: str, status: TaskStatus, failure: Failure | None = None) -> None:
        body = TaskEnded(status=status, failure=failure, ended_unix_ms=self.context.clock())
        await self.context.publisher.send("doors", body, tenant=TENANT, task=task, cause=task, index="ended")


Script = Callable[["Models", ReceivedMessage, ModelCallRequested], Awaitable[Body | None]]


class Models(EdgeComponent):
    """A model gateway: answers each call once, then from its record. script: makes the reply; None says nothing."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.away, self.context_tokens = False, 32_000
        self.rpc = {ModelsRequested: self.tell_models}
        self.asked: list[ModelCallRequested] = []
        self.made: dict[str, Body] = {}
        self.script: Script = Models.counted

    async def handle_message(self, message: ReceivedMessage) -> None:
        request = message.body
        if not isinstance(request, ModelCallRequested):
            return
        if self.away:
            raise HandBack(0.05, "away")
        self.asked.append(request)
        known = self.made.get(request.call_id)
        reply = known or await self.script(self, message, request)
        if isinstance(reply, ModelCallReplied) and reply.outcome == "answered":
            self.made[request.call_id] = reply
        if reply is not None:
            await self.context.publisher.send("doors", reply, **message.cause_fields, index="reply")

    async def tell_models(self, message: ReceivedMessage) -> ModelsReplied:
        return ModelsReplied(names=("default",), context_tokens=(self.context_tokens,))

    async def counted(self, message: ReceivedMessage, request: ModelCallRequested) -> Body:
        """The number of the answer."""
        return await self.answer(message, request, f"answer {len(self.made) + 1}")

    async def answer(self, message: ReceivedMessage, request: ModelCallRequested, text: str) -> ModelCallReplied:
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="answered",
            content=await self.context.blobs.put(message.tenant, text),
            finish="stop",
            prompt_id=request.prompt_id,
            model="m-1",
            usage=Usage(model_calls=1, input_tokens=10, output_tokens=5, cost_usd_micros=100),
        )

    def refused(self, request: ModelCallRequested, code: str, message: str) -> ModelCallReplied:
        failure = Failure.from_text(code, message)
        given: dict[str, Any] = {"call_id": request.call_id, "step_id": request.step_id, "prompt_id": request.prompt_id}
        return ModelCallReplied(**given, outcome="refused", failure=failure, standing="failed")

    def put_off(self, request: ModelCallRequested, **why: Any) -> CallDeferred:
        return CallDeferred(call_id=request.call_id, step_id=request.step_id, **{"after_ms": 30, **why})

    async def say(self, message: ReceivedMessage, request: ModelCallRequested, text: str, offset: int = 0) -> None:
        delta = TextDelta(call_id=request.call_id, step_id=request.step_id, offset=offset, text=text)
        subject = subjects.live_subject("model_gateway", message.tenant, message.task)
        await self.context.bus.publish_live(subject, delta.model_dump_json().encode())


class BudgetEdge(EdgeComponent):
    """Says how much is left, always the same."""

    def __init__(self, allowance: AllowanceReplied) -> None:
        self._allowance, self.answered = allowance, 0
        self.rpc = {AllowanceRequested: self.answer}

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Takes nothing else."""

    async def answer(self, message: ReceivedMessage) -> AllowanceReplied:
        self.answered += 1
        return self._allowance


class World:
    """What a test holds in its hands."""

    def __init__(self, mesh: MemoryMesh, settings: Settings) -> None:
        self.mesh, self.settings = mesh, settings

    def _component(self, name: str, instance: str = "0") -> Any:
        return self.mesh.running[(name, instance)].service.component

    @property
    def gateway(self) -> Gateway:
        found: Gateway = self._component("gateway")
        return found

    @property
    def planner(self) -> Planner:
        found: Planner = self._component("planner")
        return found

    @property
    def models(self) -> Models:
        found: Models = self._component("model_gateway")
        return found

    @property
    def budget(self) -> BudgetEdge:
        found: BudgetEdge = self._component("budget")
        return found

    def doors(self, instance: str = "0") -> Doors:
        found: Doors = self._component("doors", instance)
        return found

    async def call(self, *said: str, instance: str = "0", by: Caller | None = None, **more: Any) -> StoredCall:
        return await self.doors(instance).begin_model_call(by or caller(), asked(*said, **more))

    async def answer(self, *said: str, instance: str = "0", by: Caller | None = None, **more: Any) -> str:
        async with asyncio.timeout(15):
            call = await self.call(*said, instance=instance, by=by, **more)
            return (await call.wait_for_answer()).text

    async def blobs(self, author: str = "doors") -> int:
        return len(await self.mesh.messages(subjects.BLOBS_STREAM, f"blob.{author}.>"))


@asynccontextmanager
async def world(budget: AllowanceReplied | None = None, **settings: Any) -> AsyncIterator[World]:
    """Fast by default: waits of a second, runs that are not idle. budget: its answer; None: it is away."""
    chosen = Settings(**{"http_port": 0, "hold_s": 1.0, "open_wait_s": 1.0, "call_timeout_s": 5.0, **settings})
    builds: dict[str, Any] = {
        "gateway": Gateway,
        "planner": Planner,
        "model_gateway": Models,
        "doors": lambda c: Doors(c, chosen),
    }
    if budget is not None:
        builds["budget"] = lambda _: BudgetEdge(budget)
    async with MemoryMesh(builds, ack_wait_ms=500) as mesh:
        found = World(mesh, chosen)
        found.gateway.planner, found.gateway.signer = mesh.context("planner"), mesh.context("signer")
        yield found
