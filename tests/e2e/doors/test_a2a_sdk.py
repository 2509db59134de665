"""An A2A client that knows the official SDK and nothing of us, on real processes: it is given an address and a key."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from a2a.client import A2AClientError, Client, ClientConfig, create_client
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import A2AError

from bulkhead.client import Mesh
from tests.e2e.fixtures.world import World, until
from tests.integration.doors.receiver import Receiver, receiving

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONE = TaskState.TASK_STATE_COMPLETED


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[World]:
    world = World(Path(tmp_path_factory.mktemp("a2a")))
    world.change_tenants(t4={"push": {"private_hosts": [receiver.host]}})
    async with world as found:
        yield found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@asynccontextmanager
async def client(world: World, tenant: str) -> AsyncIterator[Client]:
    key = world.mesh.add_api_key(tenant, f"{tenant}-a2a", "submitter")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
        yield await create_client(world.mesh.doors_url, ClientConfig(httpx_client=http))


def asks(text: str, context_id: str = "") -> SendMessageRequest:
    parts = [Part(text=text)]
    return SendMessageRequest(message=Message(message_id=text, role=Role.ROLE_USER, parts=parts, context_id=context_id))


async def serves(world: World) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{world.mesh.doors_url}/readyz")).is_success
    except httpx.HTTPError:
        return False


def key_of(world: World, tenant: str) -> str:
    return world.mesh.add_api_key(tenant, f"{tenant}-operator", "operator")


async def test_a_task_outlives_its_door_and_is_subscribed_to_again_and_another_is_cancelled(world: World) -> None:
    async with Mesh(world.mesh.url, key_of(world, "t3")) as operator:
        await operator.halt("tenant", "t3", "look at it first")
        async with client(world, "t3") as first:
            stream = first.send_message(asks("What is 17 * 23?"))
            task = (await anext(stream)).task
            await world.mesh.kill_replica("doors")
            with pytest.raises((A2AClientError, httpx.HTTPError)):
                async for _ in stream:
                    pass
        await until(lambda: serves(world), "doors is back")
        async with client(world, "t3") as again:
            followed = again.subscribe(SubscribeToTaskRequest(id=task.id))
            assert (await anext(followed)).task.id == task.id
            unwanted = (await anext(again.send_message(asks("What is 2 + 3?")))).task
            gone = await again.cancel_task(CancelTaskRequest(id=unwanted.id))
            assert gone.status.state == TaskState.TASK_STATE_CANCELED
            await operator.resume("tenant", "t3", "it is well")
            last = [event async for event in followed][-1]
            assert last.status_update.status.state == DONE


@pytest.mark.slow
async def test_a_conversation_outlives_killed_gateways_and_a_repeated_message_is_one_turn(world: World) -> None:
    async with client(world, "t2") as peer:
        [first, *_] = [event.task async for event in peer.send_message(asks("My order number is 4711."))]
    await world.mesh.kill_replica("gateway")
    await world.mesh.kill_replica("doors")
    await until(lambda: serves(world), "doors is back")
    question = asks("What is my order number?", first.context_id)
    async with client(world, "t2") as peer:
        task = (await anext(peer.send_message(question))).task
        await world.mesh.kill_replica("gateway")

        async def repeated() -> list[StreamResponse]:
            try:
                return [event async for event in peer.send_message(question)]
            except (A2AClientError, A2AError, httpx.HTTPError):
                return []

        [again, *_] = await until(repeated, "the gateway is back")
        assert again.task.id == task.id and again.task.context_id == first.id
        ended = await peer.get_task(GetTaskRequest(id=task.id))
        assert ended.status.state == DONE and "4711" in ended.artifacts[0].parts[0].text
        listed = await peer.list_tasks(ListTasksRequest(context_id=first.id))
        assert [row.id for row in listed.tasks] == [task.id, first.id]


async def test_who_goes_away_is_told_the_end_by_push_over_killed_services(world: World, receiver: Receiver) -> None:
    receiver.status = 503
    asked = asks("What is 17 * 23?")
    hook = TaskPushNotificationConfig(id="hook", url=receiver.url, token="t0ken")
    asked.configuration.CopyFrom(SendMessageConfiguration(task_push_notification_config=hook))
    async with client(world, "t4") as away:
        task = (await anext(away.send_message(asked))).task

    async def came() -> bool:
        return len(receiver.came) > 0

    async def told() -> bool:
        return receiver.states()[-1:] == ["TASK_STATE_COMPLETED"]

    await until(came, "the receiver was tried")
    await world.mesh.kill_replica("tool_executor")
    await world.mesh.kill_replica("gateway")
    receiver.status = 200
    await until(told, "the receiver is told the end")
    assert {body["statusUpdate"]["taskId"] for *_, body in receiver.came if "statusUpdate" in body} == {task.id}
    order = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]
    assert receiver.states() == sorted(receiver.states(), key=order.index)
