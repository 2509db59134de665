"""Contexts of A2A as sessions, asked by the official client: real doors, gateway and mesh, in this process."""

import asyncio

import pytest
from a2a.client import Client
from a2a.types import ListTasksRequest, Task
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

from bulkhead.client import Mesh, Refused
from tests.integration.doors.agent_door import DONE, agent_door, message, request, sent

pytestmark = pytest.mark.slow


async def say(client: Client, text: str, context_id: str = "", name: str = "m1") -> Task:
    return await sent(client, request(message(text, name, context_id=context_id)))


async def listed(client: Client, context_id: str) -> set[str]:
    return {task.id for task in (await client.list_tasks(ListTasksRequest(context_id=context_id))).tasks}


@pytest.mark.parametrize("context_id", ("", "trip-1"))
async def test_the_second_message_of_a_context_knows_the_first_also_after_restarts(tmp_path, context_id):
    async with agent_door(tmp_path) as door, Mesh(door.stage.url, key := door.key()) as mesh:
        async with door.client(key) as client:
            first = await say(client, "My order number is 4711.", context_id)
            assert first.context_id == (context_id or first.id)
        await door.stage.restart("gateway")
        await door.stage.restart("doors")
        async with door.client(key) as client:
            second = await say(client, "What is my order number?", first.context_id, "m2")
            assert second.context_id == first.context_id and second.id != first.id
            assert second.status.state == DONE and "4711" in second.artifacts[0].parts[0].text
            assert await listed(client, first.context_id) == {first.id, second.id}
        [session] = await mesh.sessions()
        turns = (await mesh.session(session.session_id).show()).turns
        assert [turn.task_id for turn in turns] == [first.id, second.id]
        assert [turn.text for turn in turns] == ["My order number is 4711.", "What is my order number?"]
        document = await mesh.task(second.id).show()
        assert document["written_by"] == "model", "whosever key the agent has"
