"""Real doors over an in-memory bus, with hand-overs as the worker sends them and a desk to take them from.

In: what a test lets the worker and the doers say. Out: steps in hand, and what was stored.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bulkhead.callers.step_keys import StepKey, WorkerIdentity
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.delegation import HandedStep
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.plan import Delegation, PlanStep
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import DelegationRequested
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.types import Body
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.steps.handover import StepHandOvers
from tests.eventually import until

TENANT, ME = "demo", WorkerIdentity("demo", "wrk_demo")
ROLE = "refunds"
DEADLINE_MS = 600_000


class StepsWorld:
    """What a test holds in its hands."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self.mesh = mesh
        self.worker = mesh.context("worker")

    def doors(self, instance: str = "0") -> Doors:
        found = self.mesh.running["doors", instance].service.component
        assert isinstance(found, Doors)
        return found

    def desk(self, instance: str = "0") -> StepHandOvers:
        return self.doors(instance).steps

    async def hand_over(self, task: str = "t1", to: WorkerIdentity = ME, objective: ContentRef | None = None) -> str:
        """The worker asks for a step to be handed out; the id of the call."""
        deadline = self.worker.clock() + DEADLINE_MS
        delegation = Delegation(role=ROLE, to="worker", name=to.name, deadline_ms=DEADLINE_MS)
        top = TaskGrant(
            tenant=to.tenant,
            task=task,
            actor="ann",
            tools=(),
            document_scopes=(),
            limits=TaskLimits(),
            day_cost_usd_micros=1,
            day_tokens=1,
            expires_unix_ms=deadline,
            delegated=(delegation,),
        )
        place: dict[str, Any] = {"tenant": to.tenant, "task": task, "expires_unix_ms": deadline, "tools": ()}
        narrow = StepGrant(**place, step_id="a", attempt=1, plan_version=1, role=ROLE)
        parent = self.mesh.context("signer").signer.sign_grant(top)
        grant = self.mesh.context("planner").signer.sign_grant(narrow, parent=parent)
        call_id = envelope.derive_id("worker", task, to.name)
        body = DelegationRequested(
            call_id=call_id,
            step=PlanStep(id="a", role=ROLE, title="Refund", instruction="say what is refunded"),
            attempt=1,
            plan_version=1,
            delegated=delegation,
            objective=objective or await self.worker.blobs.put(to.tenant, "What is refunded?"),
            deadline_unix_ms=deadline,
        )
        place = {"tenant": to.tenant, "task": task, "cause": task, "index": call_id}
        await self.worker.publisher.send("doors", body, **place, actor="ann", grant=grant)
        return call_id

    async def take(self, wait_s: float = 5.0, *, instance: str = "0", by: WorkerIdentity = ME) -> HandedStep | None:
        return await self.desk(instance).take_step(by, "", "host-1", wait_s)

    def place(self, step: HandedStep) -> tuple[str, str, str]:
        return TENANT, step.task, step.id

    def key(self, step: HandedStep) -> StepKey:
        found = self.desk().keys.parse_key(step.key)
        assert found is not None
        return found

    async def say(self, sender: str, body: Body, index: str, task: str = "t1") -> None:
        """A word of another service about a task."""
        publisher = self.mesh.context(sender).publisher
        await publisher.send("doors", body, tenant=TENANT, task=task, cause=task, index=index)

    async def put_off(self, step: HandedStep, **why: Any) -> None:
        """A call of the holder is held back."""
        call = f"{step.id[:12]}-{'0' * 32}"
        given = {"after_ms": 15_000, "paused": True, "code": "halted", "reason": "a halt", **why}
        await self.say("model_gateway", CallDeferred(call_id=call, **given), f"deferred/{step.number}", step.task)

    async def bodies(self, kind: type[Body], to: str = "doors") -> list[Any]:
        stored = await self.mesh.messages(subjects.inbox_stream(to))
        return [kind.model_validate_json(row.body) for row in stored if row.ce_type == kind.ce_type()]


@asynccontextmanager
async def steps_world(**settings: Any) -> AsyncIterator[StepsWorld]:
    """Doors alone; a holder is silent after 15 s unless a setting says so."""
    chosen = Settings(**{"http_port": 0, "hold_s": 0.1, **settings})
    async with MemoryMesh({"doors": lambda c: Doors(c, chosen)}, ack_wait_ms=500) as mesh:
        await until(lambda: mesh.broker.pick_server(subjects.rpc_subject(ME.name, "doors", TENANT, ME.name)))
        yield StepsWorld(mesh)
