"""The executor in the real doer shell over the in-memory bus: a call that has to wait is made once."""

import json
import time
from typing import Any

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import ReserveReplied, ReserveRequested
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.tool_executor.app import build
from bulkhead_services.tool_executor.settings import Settings
from tests.open_policy import permitted
from tests.samples import sample

TOOLS = ("counter_increment_unkeyed",)
LATER = int(time.time() * 1000) + 24 * 3_600_000  # Taken when tests are collected: long before this one runs.


class Purse(EdgeComponent):
    """A budget that admits everything. busy: so many it asks to wait before."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.rpc = {ReserveRequested: self.reserve}

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Settlements."""

    async def reserve(self, message: ReceivedMessage) -> ReserveReplied:
        assert isinstance(message.body, ReserveRequested)
        asked = message.body.reservation_id
        if self.busy:
            self.busy -= 1
            return ReserveReplied(reservation_id=asked, decision="wait", retry_after_ms=5_000, reason="too busy")
        return ReserveReplied(reservation_id=asked, decision="reserved")


def step_token(mesh: MemoryMesh) -> str:
    task = sample(TaskGrant, tenant="acme", tools=TOOLS, document_scopes=("default",), expires_unix_ms=LATER)
    step = StepGrant(
        tenant="acme", task="t1", step_id="s1", attempt=1, plan_version=1, tools=TOOLS, expires_unix_ms=LATER
    )
    return mesh.context("planner").signer.sign_grant(step, parent=mesh.context("signer").signer.sign_grant(task))


async def send(mesh: MemoryMesh, call_id: str, tool: str, arguments: dict, *, cause: str) -> None:
    body = sample(
        ToolCallRequested, call_id=call_id, tool=tool, arguments_json=json.dumps(arguments), deadline_unix_ms=LATER
    )
    publisher = mesh.context("worker").publisher
    await publisher.send("tool_executor", body, tenant="acme", task="t1", cause=cause, grant=step_token(mesh))


async def replies(mesh: MemoryMesh, count: int) -> list[Any]:
    """The first `count` replies, or words that a call is put off; fails after ten seconds."""
    import asyncio

    async with asyncio.timeout(10):
        while True:
            found: list[StoredMessage] = await mesh.messages("INBOX_WORKER", "mesh.tool_executor.worker.*.acme.t1.*")
            if len(found) >= count:
                return [catalog.decode_body(one.ce_type, one.body) for one in found]  # type: ignore[misc]
            await asyncio.sleep(0.005)


async def test_a_write_without_a_key_that_has_to_wait_is_put_off_and_done_once_when_it_is_asked_anew(counter) -> None:
    settings = Settings(counter_url=counter.url)
    builds = {
        "budget": lambda context: Purse(busy=1),
        "tool_executor": lambda context: build(context, settings, rule=permitted),
    }
    async with MemoryMesh(builds) as mesh:
        for count, cause in enumerate("abc", 1):
            await send(mesh, "c1", "counter_increment_unkeyed", {"name": "n"}, cause=cause)
            last = (await replies(mesh, count))[-1]
            if count == 1:
                assert isinstance(last, CallDeferred) and last.reason == "too busy"
                assert counter.counts()["increments"] == 0
    assert last.outcome == "succeeded" and counter.counts()["increments"] == 1
