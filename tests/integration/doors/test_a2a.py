"""The agent door, asked by the official client of A2A: real doors, gateway and mesh, in this process."""

import asyncio
import json

import httpx
import pytest
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError

from bulkhead.client import Mesh
from tests.eventually import until
from tests.integration.doors.agent_door import DONE, agent_door, events, message, request, sent

BINDINGS = ("JSONRPC", "HTTP+JSON")
WORKING = TaskState.TASK_STATE_WORKING


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_message_is_a_task_that_is_followed_to_its_cited_answer(tmp_path, binding):
    async with agent_door(tmp_path) as door, door.client(door.key(), binding, streaming=True) as client:
        first, *between, answer, end = await events(client, request(message()))
        task = first.task
        assert task.history[0].parts[0].text == "What is 17 * 23?"
        assert {one.status_update.status.state for one in between} == {WORKING}
        drafts = [one.status_update for one in between if one.status_update.metadata["bulkhead"]["event"] == "text"]
        calls = [one.status_update for one in between if "callId" in one.status_update.metadata["bulkhead"]]
        assert [one.status.message.parts[0].text.split(" after ")[0] for one in calls] == [
            'calls calculate: {"expression": "17 * 23"}',
            "calculate succeeded",
        ]
        text, data = answer.artifact_update.artifact.parts
        assert "391" in text.text and "".join(one.status.message.parts[0].text for one in drafts) == text.text
        marker = data.data.struct_value["citations"][0]["marker"]
        assert f"[#{marker}]" in text.text
        assert (end.status_update.status.state, end.status_update.task_id) == (DONE, task.id)
        shown = await client.get_task(GetTaskRequest(id=task.id))
        assert shown.status.state == DONE and shown.artifacts[0].parts[0].text == text.text
        listed = await client.list_tasks(ListTasksRequest(include_artifacts=True))
        assert [one.id for one in listed.tasks] == [task.id] and listed.tasks[0].artifacts == shown.artifacts


@pytest.mark.parametrize("binding", BINDINGS)
async def test_who_does_not_stream_waits_for_the_answer_and_a_repeat_is_the_same_task(tmp_path, binding):
    async with agent_door(tmp_path) as door, door.client(door.key(), binding) as client:
        first = await sent(client, request(message()))
        assert first.status.state == DONE and "391" in first.artifacts[0].parts[0].text
        again = await sent(client, request(message(), return_immediately=True))
        assert again.id == first.id and len((await client.list_tasks(ListTasksRequest())).tasks) == 1
        other = await sent(client, request(message("What is 2 + 3?"), return_immediately=True))
        assert other.id != first.id, "another text is another task, though its client numbers from 1"


async def test_another_tenants_tasks_are_not_there(tmp_path):
    async with agent_door(tmp_path) as door, door.client(door.key()) as client:
        task = await sent(client, request(message(), return_immediately=True))
        async with door.client(door.key(tenant="t1")) as other:
            async with door.client(door.key(tenant="t1"), streaming=True) as follower:
                with pytest.raises(TaskNotFoundError):
                    await anext(follower.subscribe(SubscribeToTaskRequest(id=task.id)))
            for asked in (
                other.get_task(GetTaskRequest(id=task.id)),
                other.cancel_task(CancelTaskRequest(id=task.id)),
                sent(other, request(message(task_id=task.id))),
            ):
                with pytest.raises(TaskNotFoundError):
                    await asked
            assert not (await other.list_tasks(ListTasksRequest())).tasks


async def test_a_task_is_cancelled_once_and_then_takes_nothing_more(tmp_path):
    async with agent_door(tmp_path) as door, door.client(door.key()) as client:
        async with Mesh(door.stage.url, door.key("operator")) as operator:
            await operator.halt("tenant", "demo", "look at it first")
        task = await sent(client, request(message(), return_immediately=True))
        gone = await client.cancel_task(CancelTaskRequest(id=task.id))
        assert gone.status.state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(UnsupportedOperationError, match="has ended"):
            await sent(client, request(message(name="m2", task_id=task.id)))
        async with door.client(door.key(), streaming=True) as follower:
            with pytest.raises(UnsupportedOperationError, match="has ended"):
                await anext(follower.subscribe(SubscribeToTaskRequest(id=task.id)))


async def test_pages_of_a_list_follow_each_other_and_are_filtered_by_state(tmp_path):
    async with agent_door(tmp_path) as door, door.client(door.key()) as client:
        made = [(await sent(client, request(message(name=f"m{n}")))).id for n in range(3)]
        first = await client.list_tasks(ListTasksRequest(page_size=2))
        rest = await client.list_tasks(ListTasksRequest(page_size=2, page_token=first.next_page_token))
        assert [one.id for one in (*first.tasks, *rest.tasks)] == made[::-1] and not rest.next_page_token
        assert [(one.total_size, one.page_size) for one in (first, rest)] == [(3, 2), (3, 2)]
        done = await client.list_tasks(ListTasksRequest(status=DONE))
        assert len(done.tasks) == 3
        assert not (await client.list_tasks(ListTasksRequest(status=WORKING))).tasks


async def test_cards_say_how_to_come_in_and_what_ones_own_tenant_may(tmp_path):
    async with agent_door(tmp_path) as door, door.client(door.key()) as client:
        async with httpx.AsyncClient(base_url=door.stage.doors_url) as nobody:
            answer = await nobody.get("/.well-known/agent-card.json")
            known = {"If-None-Match": answer.headers["etag"]}
            assert (await nobody.get("/.well-known/agent-card.json", headers=known)).status_code == 304
            public = answer.json()
        assert public["capabilities"] == {"streaming": True, "pushNotifications": False, "extendedAgentCard": True}
        assert {row["url"] for row in public["supportedInterfaces"]} == {f"{door.stage.doors_url}/a2a"}
        assert "calculate" not in str(public["skills"]) and set(public["securitySchemes"]) == {"bearer", "apiKey"}
        own = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        assert "calculate" in own.skills[0].tags and "5 USD" in own.skills[0].description


async def test_a_message_that_asks_for_a_roles_skill_is_a_step_of_that_role(tmp_path):
    tenants = tmp_path / "tenants.yaml"
    most = {"cost_usd_micros": 1_000_000, "tokens": 1_000_000}
    row = {"tools": ["calculate"], "document_scopes": [], "task": most | {"deadline_ms": 600_000}, "day": most}
    row |= {"delegated_roles": {"desk": {"to": "worker", "identity": "d"}}}
    tenants.write_text(json.dumps({"tenants": {"demo": row}}))
    async with agent_door(tmp_path, tenants_file=tenants) as door, door.client(door.key()) as client:
        card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        wish = message(metadata={"skill": card.skills[1].id})
        task = await sent(client, request(wish, return_immediately=True))
        async with Mesh(door.stage.url, door.key("operator")) as operator:

            async def steps() -> list[dict]:
                document = await operator.task(task.id).show()
                assert document["failure"] is None, document["failure"]
                return document["steps"]

            assert [row["title"] for row in await until(steps)] == ["Ask desk"]
        with pytest.raises(InvalidParamsError, match=r"task, role\.desk"):
            await sent(client, request(message(metadata={"skill": "role.pirate"})))


@pytest.mark.slow
async def test_a_published_workflow_is_a_skill(tmp_path):
    step = {"id": "sum", "instruction": "What is {{sum}}?", "tools": ["calculate"], "acceptance": "a number"}
    content = {"objective": "What is {{sum}}?", "parameters": [{"name": "sum"}], "steps": [step]}
    async with (
        agent_door(tmp_path) as door,
        door.client(door.key()) as client,
        Mesh(door.stage.url, door.key("prompt_editor")) as editor,
        Mesh(door.stage.url, door.key("approver")) as approver,
    ):
        sha256 = (await editor.draft_workflow("sums", content, "first"))["sha256"]
        for mesh, action in ((editor, "submit"), (approver, "approve"), (editor, "publish")):
            await mesh.move_workflow("sums", 1, action, sha256, "fine")
        card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        assert card.skills[-1].id == "workflow.sums"
        for name, text in (("m1", "17 * 23"), ("m2", '{"sum": "17 * 23"}')):
            task = await sent(client, request(message(text, name=name, metadata={"skill": "workflow.sums"})))
            assert task.status.state == DONE and "391" in task.artifacts[0].parts[0].text
            document = await editor.task(task.id).show()
            assert (document["workflow"], document["objective"]) == ("sums.1", "What is 17 * 23?")
            assert (document["written_by"], document["plans_rejected"]) == ("model", 0)
        for name, text, skill in (("m4", "17 * 23", {"skill": "workflow.sums"}), ("m5", "And of 1 + 1?", {})):
            later = message(text, name=name, context_id=task.context_id, metadata=skill)
            assert (await sent(client, request(later))).context_id == task.id
        async with Mesh(door.stage.url, door.key()) as mesh:
            [session] = await mesh.sessions()
            turns = (await mesh.session(session.session_id).show()).turns
        assert [turn.text for turn in turns] == ["What is 17 * 23?", "What is 17 * 23?", "And of 1 + 1?"]
        with pytest.raises(InvalidParamsError, match="no skill of your extended card"):
            await sent(client, request(message("x", name="m3", metadata={"skill": "workflow.other"})))


async def test_a_client_of_the_version_before_is_served_too(tmp_path):
    body = {"role": "user", "messageId": "m1", "kind": "message", "parts": [{"kind": "text", "text": "What is 2 + 3?"}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": body}}
    async with agent_door(tmp_path) as door, door.http(door.key(), **{"A2A-Version": "0.3"}) as http:
        task = (await http.post("/a2a", json=call)).json()["result"]
        assert task["status"]["state"] == "completed" and "5" in task["artifacts"][0]["parts"][0]["text"]
        got = await http.get(f"/a2a/v1/tasks/{task['id']}")
        assert got.headers["cache-control"] == "no-store"
        assert got.json()["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_gateway_that_is_away_is_a_503_and_the_repeat_is_the_same_task(tmp_path):
    async with agent_door(tmp_path) as door, door.http(door.key()) as http:
        body = {"message": {"role": "ROLE_USER", "messageId": "m1", "parts": [{"text": "What is 2 + 3?"}]}}
        first = (await http.post("/a2a/message:send", json=body)).json()["task"]["id"]
        await door.stage.kill("gateway", hold=True)
        gone = await http.get(f"/a2a/tasks/{first}")
        assert gone.status_code == 503 and int(gone.headers["retry-after"]) > 0
        assert gone.json()["error"]["status"] == "UNAVAILABLE"
        call = {"jsonrpc": "2.0", "id": "x", "method": "GetTask", "params": {"id": first}}
        rpc = await http.post("/a2a", json=call)
        assert rpc.status_code == 503 and rpc.json()["id"] == "x" and rpc.json()["error"]["code"] == -32603
        await door.stage.restart("gateway")
        again = await http.post("/a2a/message:send", json=body)
        assert again.json()["task"]["id"] == first


async def test_a_client_that_goes_away_leaves_no_place_taken(tmp_path):
    async with agent_door(tmp_path) as door:
        async with Mesh(door.stage.url, door.key("operator")) as operator:
            await operator.halt("tenant", "demo", "look at it first")
        doors = door.doors
        async with door.client(door.key(), streaming=True) as client:
            stream = client.send_message(request(message()))
            await anext(stream)
            assert doors.pools()["calls"].demand == 1
            waiting = asyncio.create_task(sent_by_another(door))
            await until(lambda: doors.pools()["calls"].demand == 2)
            waiting.cancel()
            await stream.aclose()
        await until(lambda: doors.pools()["calls"].demand == 0)


async def sent_by_another(door):
    async with door.client(door.key()) as client:
        await sent(client, request(message(name="waits")))


async def test_a_stream_outlives_the_gateway_and_ends_when_its_replica_goes(tmp_path):
    async with (
        agent_door(tmp_path) as door,
        door.client(door.key(), streaming=True) as client,
        Mesh(door.stage.url, door.key("operator")) as operator,
    ):
        await operator.halt("tenant", "demo", "look at it first")
        stream = client.send_message(request(message()))
        await anext(stream)
        await door.stage.restart("gateway")
        await operator.resume("tenant", "demo", "it is well")
        assert [event async for event in stream][-1].status_update.status.state == DONE
        await operator.halt("tenant", "demo", "look again")
        last = client.send_message(request(message("What is 2 + 3?")))
        task = (await anext(last)).task.id
        await door.doors.stop()
        assert all(event.status_update.status.state == WORKING for event in [event async for event in last])
        assert (await operator.task(task).show())["status"] != "succeeded"
