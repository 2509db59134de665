"""Push notifications over A2A: the official client asks for them, a real server receives them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from a2a.types import StreamResponse, TaskPushNotificationConfig
from google.protobuf.json_format import ParseDict

from bulkhead.client import Mesh
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

    def config(self, **more: Any) -> TaskPushNotificationConfig:
        return TaskPushNotificationConfig(**{"id": "hook", "url": self.receiver.url, "token": "t0ken", **more})

    async def told(self, *states: str) -> None:
        async def all_of_them() -> bool:
            return self.receiver.states()[-len(states) :] == list(states)

        await until(all_of_them)

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
        push = {"push": {"hosts": ["*", "*:8443"], "private_hosts": [receiver.host]}}
        tenants = folder / "tenants.yaml"
        tenants.write_text(json.dumps({"tenants": {"demo": row | push, "t1": row | push, "t2": row}}))
        async with agent_door(folder, tenants_file=tenants) as door:
            yield Pushed(door, receiver)


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
