"""The tool door before real services: the official MCP client lists and calls tools of its tenant."""

import asyncio
import sys

import httpx
import pytest
from mcp import Client, MCPError, StdioServerParameters

from bulkhead.client import Mesh
from bulkhead.testing.mesh_backend import TENANTS
from bulkhead.tools.export import find_declarations
from bulkhead.tools.export import render_tools_file as declarations_text
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.doors.mcp import mesh_tools, server
from tests.e2e.fixtures.gate import GatedCounter
from tests.eventually import until
from tests.integration.doors.mcp_mesh import LEGACY, MODERN, TENANT, KnowsTasks, asked, mcp_mesh, task_of, text

HELLO = [{"role": "user", "content": "What is 2 + 3?"}]
MODES = pytest.mark.parametrize("mode", [MODERN, LEGACY])


@MODES
async def test_the_tools_of_the_tenant_are_listed_with_their_effects_and_called(tmp_path, mode):
    async with mcp_mesh(tmp_path) as here, here.client(mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"calculate", "counter_increment", "search_documents"} <= set(tools)
        assert "ask_steps" not in tools, "the worker's loop has it, and nobody outside"
        assert tools["calculate"].input_schema["required"] == ["expression"]
        hints = {name: tools[name].annotations for name in tools}
        assert hints["calculate"].read_only_hint and not hints["calculate"].destructive_hint
        unkeyed = hints["counter_increment_unkeyed"]
        assert (unkeyed.read_only_hint, unkeyed.destructive_hint, unkeyed.idempotent_hint) == (False, True, False)
        assert hints["counter_increment"].idempotent_hint
        of_mesh = {
            name: (hints[f"bulkhead_{name}"].read_only_hint, hints[f"bulkhead_{name}"].destructive_hint)
            for name in ("run", "submit", "watch")
        }
        assert of_mesh == {"run": (False, True), "submit": (False, True), "watch": (True, False)}
        found = await client.call_tool("calculate", {"expression": "2 * 21"})
        assert not found.is_error and text(found) == "2 * 21 = 42"


async def test_a_model_call_and_a_tool_call_of_one_key_are_one_task(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        async with here.openai() as openai:
            answer = await openai.chat.completions.with_raw_response.create(model="default", messages=HELLO)
        async with here.client() as client:
            found = await client.call_tool("calculate", {"expression": "1 + 1"})
        async with here.openai(**{"X-Bulkhead-Run": "other"}) as openai:
            other = await openai.chat.completions.with_raw_response.create(model="default", messages=HELLO)
        assert task_of(found) == answer.headers["x-bulkhead-task"] != other.headers["x-bulkhead-task"]
        async with here.client(**{"X-Bulkhead-Run": "other"}) as client:
            assert (
                task_of(await client.call_tool("calculate", {"expression": "1 + 1"}))
                == other.headers["x-bulkhead-task"]
            )
        async with here.http() as http:
            shown = (await http.get(f"/v1/tasks/{task_of(found)}")).json()
        assert (shown["kind"], shown["status"]) == ("adopted", "running")


async def test_a_run_that_called_tools_alone_succeeds_with_what_they_brought(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        async with here.client() as client:
            task = task_of(await client.call_tool("calculate", {"expression": "40 + 2"}))
        headers = {"Authorization": f"Bearer {here.key}"}
        async with httpx.AsyncClient(base_url=here.stage.doors_url, headers=headers) as http:
            assert (await http.delete(f"/v1/runs/{task}")).status_code == 200
        [ended] = await here.bodies(TaskEnded, "doors")
        assert ended.status == "succeeded"
        async with here.http() as http:
            assert (await http.get(f"/v1/tasks/{task}")).json()["answer"] == "40 + 2 = 42"


async def test_documents_are_searched_by_a_tool(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.client() as client:
        async with here.http() as http:
            told = await http.post(
                "/v1/documents", files={"file": ("boats.txt", b"A bulkhead divides a hull.", "text/plain")}
            )
            assert told.status_code < 300, told.text
        found = await client.call_tool("search_documents", {"query": "bulkhead hull"})
        assert "A bulkhead divides a hull." in text(found) and "boats.txt" in text(found)
        [passage] = found.structured_content["passages"]
        assert (passage["document"], passage["text"]) == ("boats.txt", "A bulkhead divides a hull.")
        assert (passage["start"], passage["end"], len(passage["document_sha256"])) == (0, 26, 64)
        assert found.meta["io.bulkhead/trust"] == "untrusted"
        assert "bad_arguments" in text(await client.call_tool("search_documents", {"query": ""}))


@MODES
async def test_a_request_that_is_sent_again_is_one_write_and_two_that_are_alike_are_two(tmp_path, mode):
    async with mcp_mesh(tmp_path) as here:
        async with here.client(mode) as client:
            for _ in range(2):
                await client.call_tool("counter_increment", {"name": "n"})
            assert here.counter.counts()["increments"] == 2
            for _ in range(2):
                meta = {"io.bulkhead/idempotency-key": "order 17"}
                last = await client.call_tool("counter_increment", {"name": "n"}, meta=meta)
                assert not last.is_error
        async with here.client(mode) as client:  # A client that begins anew counts its requests anew.
            await client.call_tool("counter_increment", {"name": "n"})
        assert here.counter.counts()["increments"] == 4
        assert len({one.call_id for one in await here.bodies(ToolCallRequested, "tool_executor")}) == 4


@MODES
async def test_a_write_that_its_client_gave_up_is_joined_by_the_next_call_alike(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("tests.integration.doors.mcp_mesh.CounterServer", GatedCounter)
    call = ("counter_increment", {"name": "n"})
    async with mcp_mesh(tmp_path, hold_s=30.0) as here, here.client(mode) as client:
        async with here.counter.held() as arrived:
            with pytest.raises(MCPError):
                await client.call_tool(*call, read_timeout_seconds=1.0)
            await arrived()
            again = asyncio.create_task(client.call_tool(*call))
            beside = asyncio.create_task(client.call_tool(*call))
            await asyncio.sleep(0.5)
            with pytest.raises(MCPError):
                await client.call_tool("counter_increment", {"name": "late"}, read_timeout_seconds=1.0)
        first, second = await asyncio.gather(again, beside)
        assert not first.is_error and not second.is_error, "the second is another act: the first is still waited for"
        await until(lambda: here.counter.count("late"))
        late = await client.call_tool("counter_increment", {"name": "late"})
        assert not late.is_error and here.counter.count("late") == 1, "an answer that nobody heard waits"
        assert here.counter.count("n") == 2
        await client.call_tool(*call)
        assert here.counter.count("n") == 3, "once it was heard, a call alike is another act"


async def test_a_key_binds_its_call(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.client() as client:
        meta = {"io.bulkhead/idempotency-key": "order 17"}
        assert not (await client.call_tool("counter_increment", {"name": "n"}, meta=meta)).is_error
        other = await client.call_tool("counter_increment", {"name": "m"}, meta=meta)
        assert other.is_error and "idempotency_reused" in text(other)
        assert here.counter.counts()["increments"] == 1


async def test_the_same_json_rpc_request_of_a_session_is_one_write(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        headers = {"Authorization": f"Bearer {here.key}", "Accept": "application/json, text/event-stream"}
        call = {"name": "counter_increment", "arguments": {"name": "n"}}
        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            url = f"{here.stage.doors_url}/mcp"
            session = await initialized(http, url)
            for number in (1, 1, 2):
                body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
                assert (await http.post(url, json=body, headers=session)).status_code == 200
        assert here.counter.counts()["increments"] == 2


async def test_a_session_is_of_the_person_to_whom_it_was_given(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        url, accept = f"{here.stage.doors_url}/mcp", {"Accept": "application/json, text/event-stream"}
        listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        other = here.stage.new_key(TENANT, "bob", "submitter")
        async with httpx.AsyncClient(headers=accept, timeout=30) as http:
            own = {"Authorization": f"Bearer {here.key}"}
            session = await initialized(http, url, own)
            assert (await http.post(url, json=listed, headers=own | session)).status_code == 200
            made_up = session | {"Mcp-Session-Id": "0" * 64}
            for headers in ({"Authorization": f"Bearer {other}"} | session, own | made_up):
                refused = await http.post(url, json=listed, headers=headers)
                assert refused.status_code == 404 and "no_such_session" in refused.text


async def initialized(http: httpx.AsyncClient, url: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    """The headers of a session."""
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
    begun = await http.post(url, json=asked, headers=headers)
    return {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}


def asking(folder):
    """A policy that asks about writes."""
    policy = folder / "policy"
    policy.mkdir()
    ask = '@id("writes")\n@effect("ask")\npermit (principal, action in Action::"writes", resource);\n'
    (policy / "default.cedar").write_text(ask)
    return policy


async def test_a_write_that_needs_an_approval_says_so_and_is_made_when_it_is_called_again(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PROGRESS_S", 0.1)
    told: list[float] = []

    async def progress(done, total, message):
        told.append(done)

    async with mcp_mesh(tmp_path, policy_dir=asking(tmp_path)) as here, here.client() as client:
        first = await client.call_tool("counter_increment", {"name": "n"}, progress_callback=progress)
        assert first.is_error and text(first).startswith("approval_wanted: ")
        assert told and told == sorted(told)
        async with Mesh(here.stage.url, here.stage.new_key(TENANT, "eve", "approver")) as people:
            [row] = (await people.approvals()).approvals
            assert row.approval_id in text(first)
            again = await client.call_tool("counter_increment", {"name": "n"})
            assert row.approval_id in text(again), "the repeated call is the one that waits"
            named = {"meta": {"io.bulkhead/idempotency-key": "order 17"}}
            joined = await client.call_tool("counter_increment", {"name": "n"}, **named)
            assert row.approval_id in text(joined)
            await people.grant(row, "looked at")
        done = await client.call_tool("counter_increment", {"name": "n"})
        assert not done.is_error, text(done)
        repeated = await client.call_tool("counter_increment", {"name": "n"}, **named)
        assert not repeated.is_error, "a request that joined a call is that call for ever"
        assert here.counter.counts()["increments"] == 1


async def test_who_cancels_a_request_waits_no_longer_and_the_call_stays_on_record(tmp_path):
    async with mcp_mesh(tmp_path, policy_dir=asking(tmp_path), hold_s=60.0) as here:
        headers = {"Authorization": f"Bearer {here.key}", "Accept": "application/json, text/event-stream"}
        call = {"name": "counter_increment", "arguments": {"name": "n"}}
        async with httpx.AsyncClient(headers=headers, timeout=30, base_url=here.stage.doors_url) as http:
            http.headers.update(await initialized(http, "/mcp"))
            body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
            waiting = asyncio.create_task(http.post("/mcp", json=body))
            await until(lambda: here.bodies(ApprovalRequested, "gateway"))
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
            assert (await http.post("/mcp", json=note)).status_code == 202
            assert "cancelled" in (await waiting).text
        assert len(await here.bodies(ToolCallRequested, "tool_executor")) == 1


async def test_unknown_tools_and_unfit_arguments_are_told_in_mcps_own_form(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.client() as client:
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("rm_rf", {})
        assert unknown.value.error.code == -32602 and "rm_rf" in unknown.value.error.message
        unfit = await client.call_tool("calculate", {"expresion": "1"})
        assert unfit.is_error and "expression" in text(unfit)
        large = await client.call_tool("calculate", {"expression": "1" * 17_000})
        assert large.is_error and "bad_arguments" in text(large)


async def test_without_a_key_nothing_is_told(tmp_path):
    async with mcp_mesh(tmp_path) as here, httpx.AsyncClient(base_url=here.stage.doors_url) as http:
        told = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert told.status_code == 401 and told.headers["www-authenticate"].startswith("Bearer")
        assert (await http.get("/.well-known/oauth-protected-resource/mcp")).status_code == 404  # Keys alone are taken.
        auth = {"Authorization": f"Bearer {here.key}"}
        assert (await http.get("/mcp", headers=auth)).status_code == 405
        page = auth | {"Origin": "https://evil.example"}
        assert (await http.post("/mcp", headers=page, json={})).status_code == 403
        rebound = auth | {"Host": "evil.example"}
        for path in ("/mcp", "/a2a"):
            assert (await http.post(path, headers=rebound, json={})).status_code == 421
        assert (await http.get("/.well-known/agent-card.json", headers=rebound)).status_code == 421
        assert (await http.post("/mcp", headers=auth, content=b"x" * 100_000)).status_code == 413
        auditor = here.stage.new_key(TENANT, "al", "auditor")
        assert (await http.post("/mcp", headers={"Authorization": f"Bearer {auditor}"}, json={})).status_code == 403


async def test_the_mesh_itself_is_a_tool_in_the_name_of_who_calls_it(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.client() as client:
        assert {"bulkhead_submit", "bulkhead_watch", "bulkhead_show", "bulkhead_spend"} <= {
            tool.name for tool in (await client.list_tools()).tools
        }
        given, meta = {"objective": "What is 2 + 3?"}, {"io.bulkhead/idempotency-key": "k1"}
        first, again = [await client.call_tool("bulkhead_submit", given, meta=meta) for _ in range(2)]
        assert first.structured_content == again.structured_content, text(first)
        task = {"task": first.structured_content["task"]}
        watched = await client.call_tool("bulkhead_watch", task)
        assert watched.structured_content["status"] == "succeeded", text(watched)
        shown = await client.call_tool("bulkhead_show", task)
        assert (shown.structured_content["kind"], shown.structured_content["requester"]["person"]) == ("planned", "ann")
        assert shown.structured_content["written_by"] == "model", "a model called the tool, under whosever key"
        why, rows = [await client.call_tool(f"bulkhead_{name}", task) for name in ("why", "timeline")]
        assert not why.is_error and "model_gateway" in rows.structured_content["text"], (text(why), text(rows))
        refused = await client.call_tool("bulkhead_spend", {})
        assert refused.is_error and "operator" in text(refused), "a submitter may not see it, here as elsewhere"
        assert "bad_arguments" in text(await client.call_tool("bulkhead_submit", {}))


async def test_an_objective_is_a_task_of_mcp_for_a_client_that_knows_them(tmp_path):
    knows = KnowsTasks()
    async with mcp_mesh(tmp_path) as here, here.client(extensions=[knows]) as client:
        done = await client.call_tool("bulkhead_run", {"objective": "What is 17 * 23?"})
        assert not done.is_error and "391" in done.structured_content["answer"]
        begun, last = knows.seen[0], knows.seen[-1]
        assert (begun.result_type, begun.status, last.status, last.task_id) == (
            *("task", "working", "completed"),
            begun.task_id,
        )
        assert (await client.call_tool("bulkhead_show", {"task": begun.task_id})).structured_content["task_id"]
        async with here.client(key=here.stage.new_key(TENANTS[1], "bob", "submitter"), extensions=[knows]) as other:
            with pytest.raises(MCPError) as foreign:
                await asked(other.session, "get", begun.task_id)
            assert foreign.value.error.code == -32602
        assert (await asked(client.session, "cancel", begun.task_id)).task_id == "", "of one that has ended: taken"
        async with here.client() as plain:
            with pytest.raises(MCPError) as unknown:
                await asked(plain.session, "get", begun.task_id)
            assert unknown.value.error.code == -32021


async def test_a_task_of_mcp_goes_through_the_server_that_a_desktop_program_starts(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        words = ["-m", "bulkhead_cli.main", "mcp", "serve", "--api-key", here.key, "--url", here.stage.url]
        over = StdioServerParameters(command=sys.executable, args=[*words, "--doors-url", here.stage.doors_url])
        async with Client(over, mode=MODERN, extensions=[knows := KnowsTasks()]) as client:
            done = await client.call_tool("bulkhead_run", {"objective": "What is 17 * 23?"})
        assert not done.is_error and knows.seen[-1].status == "completed", text(done)


async def test_a_task_of_mcp_is_cancelled_in_the_mesh(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.operator() as operator:
        await operator.halt("tenant", TENANT, "look at it first")
        async with here.client(extensions=[KnowsTasks(cancels=True)]) as client:
            assert (await client.call_tool("bulkhead_run", {"objective": "What is 17 * 23?"})).is_error
        [task] = (await operator.get("/v1/tasks", {"limit": "1"}))["tasks"]
        assert task["status"] == "cancelled"


@MODES
async def test_a_client_without_tasks_waits_for_the_answer_of_an_objective(tmp_path, mode, monkeypatch):
    async with mcp_mesh(tmp_path) as here, here.client(mode) as client:
        done = await client.call_tool("bulkhead_run", {"objective": "What is 17 * 23?"})
        assert not done.is_error and "391" in done.structured_content["answer"]
        monkeypatch.setattr(mesh_tools, "MAX_WAIT_S", 0.1)
        async with here.operator() as operator:
            await operator.halt("tenant", TENANT, "look at it first")
            waits = await client.call_tool("bulkhead_run", {"objective": "What is 2 + 3?"})
        assert not waits.is_error and "bulkhead_watch" in waits.structured_content["next"]


REPORTS = '''
from pydantic import BaseModel

from bulkhead.tools import tool

class Report(BaseModel):
    city: str
    degrees: int

@tool(effect="read")
async def look(city: str) -> Report:
    """Look at a thermometer."""
    return Report(city=city, degrees=22)

@tool(effect="write")
async def heat(city: str) -> Report:
    """Heat a city."""
    return Report(city=city, degrees=23)
'''


async def test_a_reading_tools_output_schema_is_declared_and_its_result_fits(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").write_text(REPORTS)
    (tmp_path / "reports" / "tools.yaml").write_text(declarations_text("reports", find_declarations("reports")))
    async with mcp_mesh(tmp_path, packs=("reports",)) as here, here.client() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["look"].output_schema["properties"]["degrees"] == {"type": "integer"}
        assert tools["heat"].output_schema is None, "a write that was made is never told as an error"
        for name, degrees in (("look", 22), ("heat", 23)):
            found = await client.call_tool(name, {"city": "Rome"})
            assert not found.is_error and found.structured_content == {"city": "Rome", "degrees": degrees}
