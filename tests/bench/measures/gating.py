"""What the boundary costs before a tool begins: the chain of grants, the sources of the arguments, policy, the record.

In: a folder, unused. Out: boundary_p50_ms (a call of a task under way), boundary_first_p50_ms (the first of a task,
whose grant nobody verified before) and boundary_calls_per_s of one core. Nothing is stored, and no tool runs: the
broker is in memory, and the call is one that policy permits.
"""

import time
from functools import partial
from pathlib import Path

from bulkhead.grants.attribution import arguments_sha256
from bulkhead.policy.attribution import SourceText, attribute_values
from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.decision import decide
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.doer.protocol import Job
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.tools.catalog import tool_rows
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_infra.nats.server import Durability
from bulkhead_services.tool_executor.boundary.gate import Gate
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import POLICY_DIR
from tests.bench.figures import Book, quantile

TENANT, TOOL = "demo", "counter_increment"
TASKS, CALLS = 100, 10
HOUR_MS = 3_600_000
MEASURES = ("boundary_p50_ms", "boundary_first_p50_ms", "boundary_calls_per_s")


class _Calls:
    """Calls as they come in: signed by signer, planner and model gateway, each with arguments of its own."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh
        self.verifier = mesh.context("tool_executor").verifier

    def made(self, task: str, number: int) -> ReceivedMessage:
        """The number-th call of a task."""
        limits, until = TaskLimits(), unix_ms() + HOUR_MS
        grant = TaskGrant(
            tenant=TENANT,
            task=task,
            actor="ann",
            tools=(TOOL,),
            document_scopes=("default",),
            limits=limits,
            day_cost_usd_micros=1,
            day_tokens=1,
            expires_unix_ms=2**50,
        )
        step = StepGrant(
            tenant=TENANT, task=task, step_id="s", attempt=1, plan_version=1, tools=(TOOL,), expires_unix_ms=2**50
        )
        token = self._mesh.context("planner").signer.sign_grant(
            step, self._mesh.context("signer").signer.sign_grant(grant)
        )
        arguments = {"name": f"{task}-{number}", "amount": number + 1}
        said = f'{{"amount": {number + 1}, "name": "{task}-{number}"}}'
        objective = SourceText(f"Count {task}-{number} by {number + 1}.", "user", "0" * 64, "objective")
        values, complete = attribute_values(arguments, (objective,))
        sha256 = arguments_sha256(said)
        assert sha256 is not None
        seen = Attribution(
            tool=TOOL, arguments_sha256=sha256, values=values, complete=complete, observed_by="model_gateway"
        )
        request = ToolCallRequested(
            call_id=f"c{number}",
            step_id="s",
            attempt=1,
            tool=TOOL,
            arguments_json=said,
            deadline_unix_ms=until,
            attribution=self._mesh.context("model_gateway").signer.sign_attribution(seen, TENANT, task),
        )
        head = Envelope(id="e" * 32, type=request.ce_type(), source="worker", time_unix_ms=unix_ms(), grant=token)
        return ReceivedMessage(head, request, TENANT, task, "worker", number, unix_ms(), 1)


async def boundary(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """Time of each call from its message to the ruling that permits it."""
    async with MemoryMesh({}) as mesh:
        tool = load_registry({"counter_url"}).tools[TOOL]
        policy = CedarPolicy.load_folder(POLICY_DIR, [row.spec for row in tool_rows()], POLICY_DIR)
        gate = Gate(mesh.context("tool_executor"), partial(decide, policy=policy), lambda _: "none", HOUR_MS)
        calls = _Calls(mesh)
        first: list[float] = []
        later: list[float] = []
        for task in range(TASKS * scale):
            for number in range(CALLS):
                message = calls.made(f"t{task}", number)
                began = time.perf_counter()
                authority = calls.verifier.verify_authority(
                    message.envelope.grant, tenant=TENANT, task=message.task, now_unix_ms=unix_ms()
                )
                assert isinstance(message.body, ToolCallRequested)
                job = Job.from_message(message, message.body, authority, unix_ms())
                arguments = tool.read_arguments(message.body.arguments_json)
                assert not isinstance(arguments, Failure)
                passed = await gate.admit_call(job, tool, arguments)
                (later if number else first).append((time.perf_counter() - began) * 1000)
                assert passed.ruling.effect == "permit" and not passed.approval_id, passed
    book.add("boundary_p50_ms", quantile(later, 0.5))
    book.add("boundary_first_p50_ms", quantile(first, 0.5))
    book.add("boundary_calls_per_s", 1000 * len(later) / sum(later))
