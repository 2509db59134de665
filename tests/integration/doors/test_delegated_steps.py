"""Steps that a program outside carries out, by HTTP, in a mesh of real services: held, lost, answered and paid once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from bulkhead.client import Mesh
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.delegation import StepAnswer, StepAnswerRequested, StepBeatRequested, StepTakeRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.step import DelegationReplied, DelegationRequested
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor import app as tool_executor
from bulkhead_services.tool_executor.settings import Settings as ToolSettings
from bulkhead_services.worker.app import LOGICS as WORKER
from tests.eventually import until
from tests.integration.doors.mcp_mesh import MODERN, task_of, text
from tests.integration.doors.whole_mesh import KEY, TENANT, Whole, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import says

MINE, OTHER, FOREIGN = "bk_wrk_demo", "bk_wrk_other", "bk_wrk_acme"
ROLES = {
    "refunds": {"to": "worker", "identity": "wrk_demo", "description": "Says what is refunded."},
    "letters": {"to": "worker", "identity": "wrk_other"},
}
KEYS = (
    (MINE, TENANT, "wrk_demo", "worker"),
    (OTHER, TENANT, "wrk_other", "worker"),
    (FOREIGN, "acme", "wrk_demo", "worker"),
)


def plan(*roles: str, tools: tuple[str, ...] = ()) -> dict[str, Any]:
    """The first step, and others that build on it. tools: of each."""
    row = {"title": "Refund", "instruction": "say what is refunded", "acceptance": "an amount", "tools": list(tools)}
    first, *rest = roles
    later = [{**row, "id": f"s{at}", "role": role, "inputs": ["a"]} for at, role in enumerate(rest)]
    return {"steps": [{**row, "id": "a", "role": first}, *later]}


class Outside:
    """A program outside, by plain HTTP."""

    def __init__(self, here: Whole, key: str = MINE) -> None:
        self.here, self._key = here, key

    async def _ask(self, method: str, path: str, key: str, **more: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.here.doors.port}/v1/steps{path}"
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.request(method, url, headers={"Authorization": f"Bearer {key}"}, **more)

    async def take(self, wait_s: float = 10, **more: str) -> dict[str, Any]:
        """A step; {} when there is none."""
        found = await self._ask("GET", "", self._key, params={"wait_s": str(wait_s), **more})
        assert found.status_code in (200, 204), found.text
        return found.json() if found.status_code == 200 else {}

    async def beat(self, step: dict[str, Any]) -> dict[str, Any]:
        return (await self._ask("POST", f"/{step['id']}/heartbeat", step["key"])).json()

    async def answer(self, step: dict[str, Any], **said: Any) -> httpx.Response:
        return await self._ask("POST", f"/{step['id']}/answer", step["key"], json=said)

    def openai(self, step: dict[str, Any]) -> openai.AsyncOpenAI:
        url = f"http://127.0.0.1:{self.here.doors.port}/openai/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=step["key"])

    @asynccontextmanager
    async def mcp(self, key: str) -> AsyncIterator[Client]:
        """The official client of the tool door."""
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {key}"})
        url = f"http://127.0.0.1:{self.here.doors.port}/mcp"
        async with Client(streamable_http_client(url, http_client=http), mode=MODERN) as found:
            yield found


@asynccontextmanager
async def mesh(folder, *scripts, tools: tuple[str, ...] = (), **settings):
    """tools: of the tenant, with the service that has them."""
    more: dict[str, Any] = {"worker": lambda c: dict(WORKER)}
    if tools:
        more["tool_executor"] = lambda c: tool_executor.build(c, ToolSettings(data_dir=folder))
    policy = {"delegated_roles": ROLES, "tools": list(tools)}
    async with whole_mesh(folder, *scripts, policy=policy, keys_of=KEYS, more=more, **settings) as here:
        yield here, Outside(here)


async def submit(here: Whole, *roles: str, tools: tuple[str, ...] = ()) -> str:
    async with Mesh(here.gateway_url, KEY) as client:
        return (await client.submit("What is refunded?", plan=plan(*roles, tools=tools), check=False)).id


async def restart(here: Whole) -> None:
    """Doors are killed and begin anew."""
    here.mesh.kill_replica("doors")
    await here.mesh.start("doors")
    await until(lambda: here.doors.port)


async def ask(client: openai.AsyncOpenAI, text: str = "hello") -> str:
    answer = await client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


async def test_a_step_is_taken_worked_on_with_a_model_and_answered(tmp_path):
    async with mesh(tmp_path, says("60.00")) as (here, mine):
        task = await submit(here, "refunds")
        step = await mine.take(holder="host-1")
        assert (step["task"], step["step"], step["role"], step["number"]) == (task, "a", "refunds", 1)
        assert (step["instruction"], step["objective"]) == ("say what is refunded", "What is refunded?")
        assert (await mine.beat(step))["go_on"]
        assert await ask(mine.openai(step)) == "60.00"
        assert (await mine.answer(step, text="He gets 60.00.")).json() == {"accepted": True, "repeated": False}
        end = await here.ended("succeeded")
        assert await here.mesh.context("gateway").blobs.get_text(TENANT, end.result.content) == "He gets 60.00."
        assert [(row.kind, row.trust, row.observed_by) for row in end.result.provenance] == [
            ("tool_result", "untrusted", "doors")
        ]
        assert (end.usage.model_calls, end.usage.input_tokens, end.usage.output_tokens) == (1, 100, 20)
        [settled] = await here.settled()
        assert settled.usage.cost_usd_micros == end.usage.cost_usd_micros


async def test_a_steps_key_has_the_plans_tools_and_no_other_at_the_tool_door(tmp_path):
    tools, nowhere = ("calculate", "date_add"), "http://127.0.0.1:1"
    async with mesh(tmp_path, tools=tools, step_silent_s=1.0, gateway_url=nowhere) as (here, mine):
        async with mine.mcp(KEY) as people:
            names = {tool.name for tool in (await people.list_tools()).tools}
            assert {*tools, "bulkhead_submit"} <= names
        task = await submit(here, "refunds", tools=("calculate",))
        first = await mine.take()
        async with mine.mcp(first["key"]) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["calculate"]
            found = await client.call_tool("calculate", {"expression": "2 * 30"})
            assert (text(found), task_of(found)) == ("2 * 30 = 60", task)
            for other in ("date_add", "bulkhead_submit"):
                with pytest.raises(MCPError, match="there is no tool"):
                    await client.call_tool(other, {"objective": "more"})
            second = await mine.take()
            assert second["number"] == 2
            await refused_tools(client, "another holder")
        async with mine.mcp(second["key"]) as client:
            assert text(await client.call_tool("calculate", {"expression": "3 * 20"})) == "3 * 20 = 60"
            assert (await mine.answer(second, text="60.00")).status_code == 200
            await refused_tools(client, "answered")
        await here.ended("succeeded")
        assert len(await here.bodies(ToolCallRequested, "tool_executor")) == 2


async def refused_tools(client: Client, why: str) -> None:
    """The tool door knows its key no more."""
    with pytest.raises(MCPError, match=f"step_lost: .*{why}"):
        await client.list_tools()
    refused = await client.call_tool("calculate", {"expression": "1 + 1"})
    assert refused.is_error and text(refused).startswith("step_lost: ") and why in text(refused)


async def test_beats_keep_a_step(tmp_path):
    async with mesh(tmp_path, step_silent_s=1.0) as (here, mine):
        await submit(here, "refunds")
        step = await mine.take()
        waiting = asyncio.create_task(mine.take(wait_s=3))
        while not waiting.done():
            assert (await mine.beat(step))["go_on"]
            await asyncio.wait({waiting}, timeout=0.2)
        assert waiting.result() == {}


async def test_another_roles_and_another_tenants_steps_are_invisible(tmp_path):
    async with mesh(tmp_path) as (here, mine):
        await submit(here, "refunds", "letters")
        assert await Outside(here, OTHER).take(wait_s=0.3) == {}
        assert await Outside(here, FOREIGN).take(wait_s=0.3) == {}
        assert await mine.take(wait_s=0.3, role="letters") == {}
        first = await mine.take()
        await mine.answer(first, text="60.00")
        letter = await Outside(here, OTHER).take()
        assert letter["inputs"][0]["text"] == "60.00" and letter["inputs"][0]["step"] == "a"
        assert (await mine.answer({**letter, "key": first["key"]}, text="mine")).status_code == 401
        forged = letter["key"].replace("wrk_other", "wrk_demo")
        assert (await mine.answer({**letter, "key": forged}, text="mine")).status_code == 401
        for key in (KEY, "bk_nobody", letter["key"]):
            with pytest.raises(AssertionError, match="unauthorized"):
                await Outside(here, key).take(wait_s=0)
        with pytest.raises(openai.AuthenticationError):
            await ask(openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{here.doors.port}/openai/v1", api_key=MINE))
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {MINE}"}) as client:
            assert (await client.get(f"{here.gateway_url}/v1/tasks")).status_code == 401


async def test_a_kill_of_doors_loses_neither_a_step_nor_an_answer(tmp_path):
    async with mesh(tmp_path, says("60.00"), step_silent_s=1.0) as (here, mine):
        await submit(here, "refunds", "refunds")
        await until(lambda: here.bodies(DelegationRequested, "doors"))
        await restart(here)
        step = await mine.take()
        await restart(here)
        assert await ask(mine.openai(step)) == "60.00", "its key is good at every replica"
        assert (await mine.beat(step))["go_on"]
        assert (await mine.answer(step, text="60.00")).status_code == 200
        await restart(here)
        again = await mine.take()
        assert again["step"] == "s0" and again["inputs"][0]["text"] == "60.00"
        assert (await mine.answer(again, text="done")).status_code == 200
        await here.ended("succeeded")


async def test_a_cancelled_task_stops_its_holder_and_counts_what_it_spent(tmp_path):
    async with mesh(tmp_path, says("x")) as (here, mine):
        task = await submit(here, "refunds")
        step = await mine.take()
        await ask(mine.openai(step))
        async with Mesh(here.gateway_url, KEY) as client:
            await client.task(task).cancel()

        async def stopped() -> bool:
            return not (await mine.beat(step))["go_on"]

        await until(stopped)
        assert (await mine.answer(step, text="too late")).json()["error"]["code"] == "late"
        [reply] = await until(lambda: here.bodies(DelegationReplied, "worker"))
        assert (reply.failure.code, reply.usage.model_calls) == ("cancelled", 1)


@pytest.mark.parametrize("said", [{"txt": "x"}, {"text": "x", "missing": "all"}, ["x"]], ids=["name", "type", "list"])
async def test_an_answer_that_cannot_be_read_is_refused_and_the_step_stays(tmp_path, said):
    async with mesh(tmp_path) as (here, mine):
        await submit(here, "refunds")
        step = await mine.take()
        refused = await mine._ask("POST", f"/{step['id']}/answer", step["key"], json=said)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_answer")
        assert (await mine.beat(step))["go_on"]
        assert subjects.is_of_doors(step["task"]) is False


async def test_over_the_bus_a_key_is_good_for_its_own_identity_alone(tmp_path):
    async with mesh(tmp_path) as (here, mine):
        await submit(here, "refunds")
        step = await mine.take()
        table = here.doors.rpc

        async def asks(sender: str, body: Body, tenant: str = TENANT) -> Any:
            head = Envelope(id="0" * 32, type=body.ce_type(), source=sender, time_unix_ms=1)
            return await table[type(body)](ReceivedMessage(head, body, tenant, sender, sender, 0, 1))

        for sender, tenant in (("wrk_other", TENANT), ("wrk_demo", "acme")):
            beaten = await asks(sender, StepBeatRequested(key=step["key"]), tenant)
            assert beaten.failure.code == "unauthorized"
            taken = await asks(sender, StepTakeRequested(wait_ms=0), tenant)
            assert (taken.step, taken.failure) == (None, None)
        assert (await asks("wrk_demo", StepBeatRequested(key=step["key"]))).beaten.go_on
        said = StepAnswerRequested(key=step["key"], answer=StepAnswer(text="60.00"))
        assert (await asks("wrk_demo", said)).accepted.accepted
        late = StepAnswerRequested(key=step["key"], answer=StepAnswer(text="61.00"))
        assert (await asks("wrk_demo", late)).failure.code == "late"
