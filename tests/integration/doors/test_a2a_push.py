"""Push notifications over A2A: the official client asks for them, a real server receives them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from a2a.client import Client
from a2a.client.errors import A2AClientError
from a2a.compat.v0_3.types import Task as Task03
from a2a.types import (
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    StreamResponse,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError, PushNotificationNotSupportedError, TaskNotFoundError
from google.protobuf.json_format import ParseDict

from bulkhead.client import Mesh
from bulkhead.client.errors import Refused
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.push import PushConfigSet
from tests.eventually import until
from tests.integration.doors.agent_door import DONE, AgentDoor, agent_door, message, request, sent
from tests.integration.doors.receiver import Receiver, receiving

BINDINGS = ("JSONRPC", "HTTP+JSON")
MOST = {"cost_usd_micros": 5_000_000, "tokens": 5_000_000}
ENDED = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]


@dataclass
class Pushed:
    """A mesh whose tenants demo and t1 have push notifications, to one receiver and to any public host; t2 has none."""

    door: AgentDoor
    receiver: Receiver
    tenants: Path

    def config(self, **more: Any) -> TaskPushNotificationConfig:
        return TaskPushNotificationConfig(**{"id": "hook", "url": self.receiver.url, "token": "t0ken", **more})

    async def told(self, *states: str) -> None:
        async def all_of_them() -> bool:
            return self.receiver.states()[-len(states) :] == list(states)

        await until(all_of_them)

    async def settings(self) -> list[str]:
        """Ids of the configs that were set, one for each message that did so."""
        stored = await self.door.stage._mesh.messages(subjects.inbox_stream("gateway"))
        return [json.loads(one.body)["config_id"] for one in stored if one.ce_type == PushConfigSet.ce_type()]

    async def stopped(self, task: str) -> int:
        """Once it is on record that a config of the task is deleted: how much came before."""
        records = subjects.records_stream("tool_executor")

        async def noted() -> bool:
            return any(f".{task}." in one.subject for one in await self.door.stage._mesh.messages(records))

        await until(noted)
        return len(self.receiver.came)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Mesh]:
        """While nothing of the tenant's runs on."""
        async with Mesh(self.door.stage.url, self.door.key("operator")) as operator:
            await operator.halt("tenant", "demo", "look at it first")
            yield operator


@asynccontextmanager
async def pushing(folder: Path) -> AsyncIterator[Pushed]:
    with receiving() as receiver:
        row = {"tools": ["calculate"], "document_scopes": ["default"]}
        row |= {"task": MOST | {"deadline_ms": 600_000}, "day": MOST}
        push = {"push": {"hosts": ["*", "localhost:8443"], "private_hosts": [receiver.host]}}
        tenants = folder / "tenants.yaml"
        tenants.write_text(json.dumps({"tenants": {"demo": row | push, "t1": row | push, "t2": row}}))
        async with agent_door(folder, tenants_file=tenants) as door:
            yield Pushed(door, receiver, tenants)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_wish_that_comes_with_a_message_is_told_each_state_in_order_and_the_answer(tmp_path, binding):
    async with pushing(tmp_path) as mesh, mesh.door.client(mesh.door.key(), binding) as client:
        asked = request(message(context_id="trip-1"), task_push_notification_config=mesh.config())
        task = await sent(client, asked)
        assert task.status.state == DONE
        await mesh.told(ENDED[-1])
        assert set(mesh.receiver.states()) <= set(ENDED) and mesh.receiver.states() == sorted(
            mesh.receiver.states(), key=ENDED.index
        )
        events = [ParseDict(body, StreamResponse()) for *_, body in mesh.receiver.came]
        answer, end = events[-2].artifact_update, events[-1].status_update
        assert "391" in answer.artifact.parts[0].text and end.status.state == DONE
        assert {(one.task_id, one.context_id) for one in (answer, end)} == {(task.id, "trip-1")}
        for path, headers, _ in mesh.receiver.came:
            assert (path, headers["x-a2a-notification-token"]) == ("/pushed?of=ann", "t0ken")
            assert headers["content-type"] == "application/a2a+json" and "authorization" not in headers


@pytest.mark.parametrize("binding", BINDINGS)
async def test_configs_are_set_shown_listed_and_deleted_and_the_same_again_changes_nothing(tmp_path, binding):
    async with pushing(tmp_path) as mesh, mesh.held(), mesh.door.client(mesh.door.key(), binding) as client:
        task = await sent(client, request(message(), return_immediately=True))
        made = await client.create_task_push_notification_config(mesh.config(task_id=task.id))
        assert (made.task_id, made.id, made.url, made.token) == (task.id, "hook", mesh.receiver.url, "t0ken")
        await mesh.told("TASK_STATE_WORKING")
        assert await client.create_task_push_notification_config(mesh.config(task_id=task.id)) == made
        nameless = await client.create_task_push_notification_config(mesh.config(task_id=task.id, id="", token=""))
        assert nameless.id == task.id
        assert await mesh.settings() == ["hook", task.id]
        got = GetTaskPushNotificationConfigRequest(task_id=task.id, id="hook")
        assert await client.get_task_push_notification_config(got) == made
        listing = ListTaskPushNotificationConfigsRequest(task_id=task.id)
        listed = await client.list_task_push_notification_configs(listing)
        assert list(listed.configs) == [made, nameless]
        gone = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="hook")
        for _ in range(2):
            await client.delete_task_push_notification_config(gone)
        with pytest.raises(TaskNotFoundError):
            await client.get_task_push_notification_config(got)
        assert [one.id for one in (await client.list_task_push_notification_configs(listing)).configs] == [task.id]
        for number in range(bounds.MAX_PUSH_CONFIGS - 1):
            await client.create_task_push_notification_config(mesh.config(task_id=task.id, id=f"h{number}"))
        with pytest.raises(InvalidParamsError, match="which is the most"):
            await client.create_task_push_notification_config(mesh.config(task_id=task.id, id="one-more"))


async def test_what_is_set_after_the_end_is_told_the_end(tmp_path):
    async with pushing(tmp_path) as mesh, mesh.door.client(mesh.door.key()) as client:
        task = await sent(client, request(message()))
        await client.create_task_push_notification_config(mesh.config(task_id=task.id))
        await mesh.told(ENDED[-1])
        assert ["artifactUpdate" in body for *_, body in mesh.receiver.came] == [True, False]


LOGGED = ("push_given_up", "push_dropped")


async def test_a_config_whose_hosts_are_taken_away_while_a_post_is_due_ends_by_name(tmp_path, caplog):
    async with pushing(tmp_path) as mesh, mesh.held() as operator, mesh.door.client(mesh.door.key()) as client:
        task = await sent(
            client, request(message(), return_immediately=True, task_push_notification_config=mesh.config())
        )
        await mesh.told("TASK_STATE_WORKING")
        came, rows = len(mesh.receiver.came), json.loads(mesh.tenants.read_text())["tenants"]
        mesh.tenants.write_text(json.dumps({"tenants": rows | {"demo": rows["t2"]}}))
        [off] = (await operator.task(task.id).push_configs())["configs"]
        assert "names no hosts" in off["given_up"]
        await operator.resume("tenant", "demo", "it is well")

        async def ended() -> bool:
            [row] = (await operator.task(task.id).push_configs())["configs"]
            named = "names no hosts that push notifications may go to" in row["given_up"] and row["waiting"] == 0
            return named and all(name in str([vars(one) for one in caplog.records]) for name in LOGGED)

        await until(ended)
        with pytest.raises(Refused, match="no push notifications"):
            await operator.task(task.id).set_push("hook", mesh.receiver.url)
    assert len(mesh.receiver.came) == came


async def test_another_tenants_task_is_not_there_and_a_tenant_without_hosts_has_none(tmp_path):
    async with pushing(tmp_path) as mesh, mesh.door.client(mesh.door.key()) as client:
        task = await sent(client, request(message(), return_immediately=True))
        await client.create_task_push_notification_config(mesh.config(task_id=task.id))
        own = {"task_id": task.id, "id": "hook"}

        def asked(of: Client) -> list[Any]:
            return [
                of.create_task_push_notification_config(mesh.config(task_id=task.id, id="mine")),
                of.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(**own)),
                of.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=task.id)),
                of.delete_task_push_notification_config(DeleteTaskPushNotificationConfigRequest(**own)),
            ]

        async with mesh.door.client(mesh.door.key(tenant="t1")) as other:
            for one in asked(other):
                with pytest.raises(TaskNotFoundError):
                    await one
            card = await other.get_extended_agent_card(GetExtendedAgentCardRequest())
            assert card.capabilities.push_notifications
        async with mesh.door.client(mesh.door.key(tenant="t2")) as without:
            wish = request(message(), task_push_notification_config=mesh.config())
            for one in (*asked(without), sent(without, wish)):
                with pytest.raises(PushNotificationNotSupportedError):
                    await one
            card = await without.get_extended_agent_card(GetExtendedAgentCardRequest())
            assert not card.capabilities.push_notifications
        async with mesh.door.client(mesh.door.key("auditor")) as auditor:
            for one in asked(auditor):
                with pytest.raises(A2AClientError, match="403"):
                    await one
        async with Mesh(mesh.door.stage.url, mesh.door.key("operator")) as operator:
            [row] = (await operator.task(task.id).push_configs())["configs"]
            assert (row["config_id"], row["token"]) == ("hook", ""), "a token is shown to the person who set it"


async def test_a_client_of_the_version_before_is_told_in_its_own_form(tmp_path):
    async with pushing(tmp_path) as mesh, mesh.door.http(mesh.door.key(), **{"A2A-Version": "0.3"}) as http:

        async def call(method: str, **params: Any) -> Any:
            answer = (
                await http.post("/a2a", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            ).json()
            assert "error" not in answer, answer
            return answer.get("result")

        said = {
            "role": "user",
            "messageId": "m",
            "kind": "message",
            "parts": [{"kind": "text", "text": "What is 2 + 3?"}],
        }
        wish = {"id": "hook", "url": mesh.receiver.url, "token": "t0ken"}
        task = await call("message/send", message=said, configuration={"pushNotificationConfig": wish})
        await mesh.told("completed")
        assert {one["kind"] for *_, one in mesh.receiver.came} == {"task"}
        last = Task03.model_validate(mesh.receiver.came[-1][2])
        assert last.id == task["id"] and last.artifacts and "5" in last.artifacts[0].parts[0].root.text
        row = {"taskId": task["id"], "pushNotificationConfig": wish}
        name = "tasks/pushNotificationConfig/"
        assert await call(name + "set", **row) == row
        assert await call(name + "get", id=task["id"], pushNotificationConfigId="hook") == row
        assert await call(name + "list", id=task["id"]) == [row]
        rest = f"/a2a/v1/tasks/{task['id']}/pushNotificationConfigs"
        assert (await http.get(f"{rest}/hook")).json()["pushNotificationConfig"]["url"] == mesh.receiver.url
        named = {"name": f"tasks/{task['id']}/pushNotificationConfigs/rest"}
        body = {"parent": f"tasks/{task['id']}", "config": named | {"pushNotificationConfig": wish | {"id": "rest"}}}
        made = (await http.post(rest, json=body)).json()
        assert made.get("pushNotificationConfig", {}).get("id") == "rest", made
        assert (await http.delete(f"{rest}/rest")).status_code == 204
        assert (await http.get(f"{rest}/rest")).status_code == 404
        assert await call(name + "delete", id=task["id"], pushNotificationConfigId="hook") is None
        assert await call(name + "list", id=task["id"]) == []
