"""Contexts of A2A as sessions, asked by the official client: real doors, gateway and mesh, in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from a2a.client import Client
from a2a.types import ListTasksRequest, Task
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

from bulkhead.client import Mesh, Refused
from tests.integration.doors.agent_door import DONE, agent_door, message, request, sent

pytestmark = pytest.mark.slow


@asynccontextmanager
async def speaking(folder: Path) -> AsyncIterator[tuple[Client, Mesh]]:
    """The official client, and that of the gateway with the same key."""
    async with agent_door(folder) as door, door.client(key := door.key()) as client, Mesh(door.stage.url, key) as mesh:
        yield client, mesh


async def say(client: Client, text: str, context_id: str = "", name: str = "m1") -> Task:
    return await sent(client, request(message(text, name, context_id=context_id)))


async def listed(client: Client, context_id: str) -> set[str]:
    return {task.id for task in (await client.list_tasks(ListTasksRequest(context_id=context_id))).tasks}


@pytest.mark.parametrize("context_id", ("", "trip-1"))
async def test_the_second_message_of_a_context_knows_the_first(tmp_path, context_id):
    async with (
        agent_door(tmp_path) as door,
        door.client(key := door.key()) as client,
        Mesh(door.stage.url, key) as mesh,
    ):
        first = await say(client, "My order number is 4711.", context_id)
        assert first.context_id == (context_id or first.id)
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


async def test_a_context_that_the_mesh_gave_to_another_is_not_there_and_a_chosen_name_is_each_persons_own(tmp_path):
    async with (
        agent_door(tmp_path) as door,
        door.client(door.key()) as ann,
        door.client(door.key("operator")) as eve,
        door.client(door.key(tenant="t1")) as foreign,
    ):
        own = await say(ann, "My order number is 4711.")
        named = await say(ann, "My order number is 4712.", "trip-1", "m2")
        for stranger in (eve, foreign):
            for unknown in (own.id, "t" + "a" * 25, "s" + "a" * 25):
                with pytest.raises(TaskNotFoundError, match=r"begin another one|lists yours"):
                    await say(stranger, "What is my order number?", unknown)
        guessed = await say(eve, "What is my order number?", "trip-1")
        assert guessed.status.state == DONE and "471" not in guessed.artifacts[0].parts[0].text
        assert await listed(eve, "trip-1") == {guessed.id}
        assert await listed(ann, "trip-1") == {named.id}


async def test_a_repeated_message_is_one_turn_and_two_at_once_do_not_lose_each_other(tmp_path):
    async with (
        agent_door(tmp_path) as door,
        door.client(key := door.key()) as client,
        Mesh(door.stage.url, key) as mesh,
    ):
        first = await say(client, "My order number is 4711.", "c")
        assert (await say(client, "My order number is 4711.", "c")).id == first.id
        turn = await say(client, "What is my order number?", "c", "m2")
        assert (await say(client, "What is my order number?", "c", "m2")).id == turn.id
        assert (await say(client, "My order number is 4711.", "c")).id == first.id
        assert await listed(client, "c") == {first.id, turn.id}
        both = await asyncio.gather(*(say(client, f"What is {number} + 1?", "d", f"m{number}") for number in (1, 2)))
        [begun, before] = await mesh.sessions()
        assert {row.task_id for row in (await mesh.session(begun.session_id).show()).turns} == {row.id for row in both}
        assert (await mesh.session(before.session_id).show()).turn_count == 2


async def test_a_task_that_its_door_left_before_it_was_a_turn_is_that_turn_when_the_message_comes_again(tmp_path):
    async with agent_door(tmp_path) as door, Mesh(door.stage.url, door.key()) as mesh:
        session = mesh.session(conversation="c")
        await session.say("What is 1 + 1?", task=(await mesh.submit("What is 1 + 1?", conversation="c")).id)
        lost = await mesh.submit("What is 17 * 23?", conversation="c", idempotency_key="k")
        assert (await session.say("What is 17 * 23?", idempotency_key="k")).id == lost.id
        other = await mesh.submit("What is 2 + 3?", conversation="elsewhere")
        with pytest.raises(Refused, match="no conversation"):
            await session.say("What is 2 + 3?", task=other.id)
        assert (await session.show()).turn_count == 2


async def test_while_a_turn_runs_another_is_refused_and_its_limits_are_those_of_its_headers(tmp_path):
    async with (
        agent_door(tmp_path) as door,
        door.client(key := door.key("operator")) as client,
        door.http(key, **{"X-Bulkhead-Limit-Tokens": "54321"}) as http,
        Mesh(door.stage.url, key) as operator,
    ):
        first = await say(client, "My order number is 4711.")
        await operator.halt("tenant", "demo", "look at it first")
        body = {"messageId": "m2", "role": "ROLE_USER", "parts": [{"text": "And now?"}]}
        wish = {"message": body | {"contextId": first.id}, "configuration": {"returnImmediately": True}}
        turn = (await http.post("/a2a/message:send", json=wish)).raise_for_status().json()["task"]
        assert (await operator.task(turn["id"]).show())["limits"]["tokens"] == 54_321
        with pytest.raises(InvalidParamsError, match=f"turn 2 goes on as task {turn['id']}"):
            await say(client, "And then?", first.id, "m3")


async def test_a_session_that_its_person_began_elsewhere_is_a_context_for_its_participants(tmp_path):
    async with (
        agent_door(tmp_path) as door,
        Mesh(door.stage.url, key := door.key()) as mesh,
        door.client(key) as client,
    ):
        session = mesh.session()
        await session.ask("My order number is 4711.")
        answer = await say(client, "What is my order number?", session.id)
        assert answer.context_id == session.id and "4711" in answer.artifacts[0].parts[0].text
        assert (await mesh.task(answer.id).show())["written_by"] == "model", "in a person's session, too"
        await session.delete()
        with pytest.raises(TaskNotFoundError):
            await say(client, "And now?", session.id, "m2")
