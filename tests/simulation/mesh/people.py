"""People and programs outside: they submit, repeat, cancel, fork and publish, again and again until they are heard.

In: a Wish. Out: messages in the gateway's inbox; in the record, the task that was taken.
"""

import asyncio
import base64
import hashlib
import json
from contextlib import suppress
from typing import Any, Protocol

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import BusError, StoredMessage
from bulkhead.runtime.context import ServiceIdentity
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import (
    ForkOf,
    RequesterClaim,
    TaskCancelRequested,
    TaskLimits,
    TaskRequested,
    TaskRequestedV1,
)
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.read_model.task_view import KeyedIds
from tests.simulation.laws.record import Record, told
from tests.simulation.mesh.net import Net
from tests.simulation.scenario import Scenario, Wish

PUBLISHERS = {"pub_demo": "demo", "pub_acme": "acme"}
"""Outside publishers that the gateway's policy knows, and their tenants."""
ROBOT = "robot"
"""The person that the policy puts behind each of them."""
PAUSE_S = 0.7
PATIENCE_S = 300.0
THINKS_S = 1.0
MOMENT_S = 40.0


class NoGateway(Exception):
    """No replica of the gateway runs at this moment."""


class Mesh(Protocol):
    """What people need of the run."""

    scenario: Scenario
    record: Record
    net: Net

    def gateway(self, number: int = 0) -> Any:
        """A replica that runs: of several, the one whose turn this is. Raises NoGateway."""
        ...

    def tell(self, line: str) -> None:
        """A line of the story."""
        ...


class People:
    """Everybody who wants something."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._buses: dict[str, MemoryBus] = {}

    async def person(self, wish: Wish) -> None:
        """Submit with a key, again and again until it is taken; perhaps once more; perhaps cancel."""
        await asyncio.sleep(wish.submit_after_s)
        fork = await self._forked(wish) if wish.fork is not None else None
        if wish.fork is not None and fork is None:
            return
        claim = RequesterClaim(tenant=wish.tenant, person="ann", role="submitter", via="api_key")
        request = TaskRequested(
            objective=wish.objective,
            limits=TaskLimits(cost_usd_micros=wish.cost_usd_micros, deadline_ms=wish.deadline_ms),
            check=wish.check,
            plan=fork[0] if fork else wish.plan,
            requester=claim,
            fork=fork[1] if fork else None,
            payload_sha256=hashlib.sha256(f"{self._mesh.scenario.seed}/{wish.name}".encode()).hexdigest(),
        )
        task = task_of(wish)
        cancels = wish.cancel_at and self._mesh.net.moment(task, wish.cancel_at)
        if wish.at_once:
            await asyncio.gather(*(self._submit(wish, request, number) for number in range(3)))
        for _ in range(1 + wish.repeats):
            await (self._submit(wish, request) if wish.via == "http" else self._publish(wish, request, task))
        self._mesh.record.tasks[wish.name] = task
        if wish.poison:
            self._poison(wish.tenant, task)
        if wish.cancel_after_s is not None:
            if cancels:
                with suppress(TimeoutError):  # It may never come.
                    await asyncio.wait_for(cancels.wait(), MOMENT_S)
            await asyncio.sleep(wish.cancel_after_s)
            if wish.via == "http":
                await self._cancel(claim, task)
            else:
                await self._say(wish, TaskCancelRequested(reason="enough"), task, "cancel")

    async def _submit(self, wish: Wish, request: TaskRequested, number: int = 0) -> None:
        while True:
            try:
                await self._mesh.gateway(number)._intake.submit_request(request, wish.name)
                return
            except Problem as problem:
                assert problem.body.status in (409, 503), problem
            except NoGateway:
                pass
            await asyncio.sleep(PAUSE_S)

    async def _cancel(self, claim: RequesterClaim, task: str) -> None:
        while True:
            try:
                component = self._mesh.gateway()
                feed = await component.feeds.fresh_feed(claim.tenant, task)
                await component._intake.request_cancel(claim, feed, "enough")
                return
            except (Problem, NoGateway):
                pass
            except Exception as error:
                self._mesh.tell(f"cancel failed: {error!r}")
            await asyncio.sleep(PAUSE_S)

    # Programs that publish

    async def _publish(self, wish: Wish, request: TaskRequested, task: str) -> None:
        """As a publisher would; what it writes about who asks must not be believed."""
        said: Body = request
        if wish.old_form:
            said = TaskRequestedV1(
                objective=wish.objective,
                limit_usd=wish.cost_usd_micros / 1_000_000,
                deadline_s=wish.deadline_ms // 1000,
            )
        await self._say(wish, said, task, "request")

    async def _say(self, wish: Wish, said: Body, task: str, index: str) -> None:
        bus = self._buses.get(wish.via) or self._buses.setdefault(wish.via, MemoryBus(self._mesh.net, wish.via))
        head = Envelope(
            id=envelope.derive_id(wish.via, "", f"{index}/{task}"),
            type=said.ce_type(),
            source=wish.via,
            time_unix_ms=self._mesh.net.clock.now_ms(),
        )
        subject = subjects.mesh_subject(wish.via, "gateway", wish.tenant, task)
        headers, message_id = head.to_headers(), envelope.message_id(wish.via.encode(), subject, head.id)
        while True:
            try:
                await bus.publish(subject, said.encode(), headers, message_id)
                return
            except BusError:
                await asyncio.sleep(PAUSE_S)

    # Forks

    async def _forked(self, wish: Wish) -> tuple[Plan, ForkOf] | None:
        """The plan and what is taken over, from what the gateway's inbox tells; None when there is nothing to fork."""
        fork, record = wish.fork, self._mesh.record
        assert fork is not None
        parent = next((one for one in self._mesh.scenario.wishes if one.name == fork.of), None)
        if parent is None:
            return None
        task, waited = task_of(parent), 0.0
        past: list[StoredMessage] = []
        while waited < PATIENCE_S:
            mine = subjects.task_filter("gateway", parent.tenant, task)
            past = [part for one in record.stored("INBOX_GATEWAY", mine) for part in told(one)]
            if _ended(past) or (fork.soon and _plan(past) is not None):
                break
            await asyncio.sleep(PAUSE_S)
            waited += PAUSE_S
        plan = _plan(past)
        if plan is None:
            return None
        # With the gateway's own looks that is longer than any follower lags.
        await asyncio.sleep(0.0 if fork.soon else THINKS_S)
        return _fork_of(wish, task, plan, _accepted(past, plan))

    def _poison(self, tenant: str, task: str) -> None:
        """A service with a bug says something unreadable to the planner."""
        self._mesh.record.poisons += 1
        subject = subjects.mesh_subject("worker", "planner", tenant, task)
        headers = {
            "ce-id": f"poison-{task}",
            "ce-type": "mesh.step.finished.v1",
            "ce-source": "worker",
            "ce-specversion": "1.0",
            "ce-time": "2027-01-15T08:00:00.000Z",
        }
        self._mesh.net.store(subject, headers | {"Nats-Msg-Id": f"poison-{task}"}, b'{"broken": ')


def task_of(wish: Wish) -> str:
    """The id of a wish's task: by the gateway's rule, or as the publisher chose it."""
    if wish.via == "http":
        return KeyedIds(ServiceIdentity("seed-of-gateway", "", {}).message_key).task_id(wish.tenant, "ann", wish.name)
    digest = hashlib.blake2b(f"{wish.via}/{wish.tenant}/{wish.name}".encode(), digest_size=16).digest()
    return f"{wish.via}-{base64.b32encode(digest).decode().lower()[:25]}"


def _ended(past: list[StoredMessage]) -> bool:
    return any(one.headers.get("ce-type", "").startswith("mesh.task.ended.") for one in past)


def _plan(past: list[StoredMessage]) -> Plan | None:
    found = [one for one in past if one.headers.get("ce-type", "").startswith("mesh.plan.adopted.")]
    return Plan.model_validate(json.loads(found[-1].body)["plan"]) if found else None


def _accepted(past: list[StoredMessage], plan: Plan) -> set[str]:
    bodies = [json.loads(one.body) for one in past if one.headers.get("ce-type", "").startswith("mesh.task.step_ended")]
    return {one["step_id"] for one in bodies if one["outcome"] == "accepted" and one["plan_version"] == plan.version}


def _fork_of(wish: Wish, task: str, plan: Plan, accepted: set[str]) -> tuple[Plan, ForkOf] | None:
    """All that was accepted is kept but the last step; that one is told to be the new task's."""
    assert wish.fork is not None
    last = plan.steps[-1].id
    again = {last, *(one.id for one in plan.steps if one.id not in accepted)}
    before = -1
    while before != (before := len(again)):
        again |= {one.id for one in plan.steps if again & set(one.inputs)}
    edited = [one.id for one in plan.steps if one.id not in again][:1] if wish.fork.keep == "edited" else []
    if wish.fork.keep == "edited" and not edited:
        return None
    steps = tuple(
        one.model_copy(update={"instruction": _of_another(one, wish.name)})
        if one.id in again or one.id in edited
        else one
        for one in plan.steps
    )
    if edited and next(one for one in steps if one.id == edited[0]) in plan.steps:
        return None
    kept = tuple(one.id for one in plan.steps if one.id not in again)
    return Plan(steps=steps), ForkOf(task=task, steps=kept)


def _of_another(step: PlanStep, name: str) -> str:
    """Its instruction, told to be another task's: who asks the model or the counter is known by that."""
    if step.kind == "agent" and step.instruction.startswith("Note "):
        return f"As part of {name}, note {step.instruction.removeprefix('Note ')}"
    return step.instruction.replace("Do your part of ", f"As part of {name}, ")
