"""Single calls: with all of their attempts, with the refused ones, in the order and for whom they are asked."""

import pytest

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import CallsReplied, CallsRequested, Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import CALLER_ROLES, RequesterClaim, TaskEnded
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.budget.queries.calls import NOT_MADE, WAITS, TenantCallQuery
from tests.unit.services.budget.queries.test_spending import NOW, Streams, fact, settled, wrapped


def requested(call: str, task: str, tool: str = "m1", tenant: str = "acme") -> ReceivedMessage:
    body = ToolCallRequested(
        call_id=call, step_id="s1", attempt=1, tool=tool, arguments_json="{}", deadline_unix_ms=NOW + 60_000
    )
    return wrapped("worker", "tool_executor", tenant, task, body)


class Calls(Streams):
    """The same streams, with requests for tools in the journal."""

    async def request(self, message: ReceivedMessage) -> None:
        publisher = Publisher("worker", MemoryBus(self.broker, "worker"), b"k", lambda: self.now)
        body, place = message.body, {"tenant": message.tenant, "task": message.task}
        await publisher.send("tool_executor", body, **place, cause="c", index=body.call_id)  # type: ignore[attr-defined]

    async def end_task(self, task: str) -> None:
        planner = Publisher("planner", MemoryBus(self.broker, "planner"), b"k", lambda: self.now)
        body = TaskEnded(status="failed", ended_unix_ms=self.now)
        await planner.send("gateway", body, tenant="acme", task=task, cause="c", index="ended")

    async def ask_calls(self, role: str = "operator", of: str = "acme", **wish: object) -> CallsReplied:
        claim = RequesterClaim(tenant=of, person="eve", role=role, via="api_key")  # type: ignore[arg-type]
        body = CallsRequested(requester=claim, since_s=3600, **wish)  # type: ignore[arg-type]
        asked = ReceivedMessage(None, body, "acme", "limits", "gateway", 0, self.now, 1)  # type: ignore[arg-type]
        return await TenantCallQuery(self.bus, lambda: self.now).answer_calls(asked)


@pytest.fixture
async def world() -> Calls:
    world = Calls()
    await world.request(requested("c1", "t1"))
    for number, later_ms in enumerate((0, 250, 627)):
        body = Settled(reservation_id=f"r{number}", call_id="c1", usage=Usage(tool_calls=1), wall_ms=5, failed="http")
        await world.say(fact(number, task="t1", at=NOW + later_ms, service="tool_executor", call="c1"))
        await world.say(wrapped("tool_executor", "budget", "acme", "t1", body))
    await world.request(requested("c2", "t2"))
    await world.request(requested("c3", "t3", tool="other"))
    await world.request(requested("c4", "t4", tenant="bolt"))
    await world.end_task("t2")
    await world.end_task("t3")
    await world.say(fact(9, task="t1", at=NOW + 1_000, call="c9"))
    await world.say(settled(9, 40, task="t1"))
    return world


async def test_a_call_is_one_row_with_all_of_its_attempts(world: Calls) -> None:
    reply = await world.ask_calls(kind="tool", order="slowest")
    rows = [(row.call_id, row.task, row.name, row.attempts, row.took_ms, row.failed) for row in reply.rows]
    assert rows[0] == ("c1", "t1", "m1", 3, 632, "http")
    assert sorted(rows[1:]) == [("c2", "t2", "m1", 0, 0, NOT_MADE), ("c3", "t3", "other", 0, 0, NOT_MADE)]
    [model] = (await world.ask_calls(kind="model")).rows
    assert (model.call_id, model.tokens, model.cost_usd_micros, model.failed, model.took_ms) == ("c9", 41, 80, "", 7)


async def test_filters_bound_the_rows_and_say_how_many_more_fit(world: Calls) -> None:
    reply = await world.ask_calls(failed=True, name="m1", top=1)
    assert [row.name for row in reply.rows] == ["m1"] and reply.more == 1
    assert (await world.ask_calls(order="dearest")).rows[0].call_id == "c9"


async def test_a_call_that_waits_has_not_failed_while_its_task_goes_on(world: Calls) -> None:
    await world.request(requested("c5", "t5"))
    failed_by_id = {row.call_id: row.failed for row in (await world.ask_calls(kind="tool")).rows}
    assert (failed_by_id["c2"], failed_by_id["c5"]) == (NOT_MADE, WAITS)
    assert {row.call_id for row in (await world.ask_calls(failed=True)).rows} == {"c1", "c2", "c3"}
    await world.end_task("t5")
    assert "c5" in {row.call_id for row in (await world.ask_calls(failed=True)).rows}


async def test_every_role_of_a_tenant_hears_which_tasks_called_a_tool_and_overseers_alone_of_calls(
    world: Calls,
) -> None:
    for role in CALLER_ROLES:
        assert sorted((await world.ask_calls(role, name="m1", tasks_only=True)).tasks) == ["t1", "t2"]
    assert (await world.ask_calls("submitter")).failure.code == "forbidden"  # type: ignore[union-attr]
    assert (await world.ask_calls(of="bolt", tasks_only=True)).failure.code == "forbidden"  # type: ignore[union-attr]
