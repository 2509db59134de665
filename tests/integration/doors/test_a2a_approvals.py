"""A call that waits for a person, decided over A2A: a follow-up message of its task holds the decision."""

import pytest
from a2a.types import Message, Part, Role, SubscribeToTaskRequest, TaskState
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from tests.integration.doors.agent_door import DONE, before, client_of, message, request, sent
from tests.integration.memory_mesh.test_approvals import asks
from tests.replay.stage import APPROVER, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

ANN = "bk_ann_of_demo"


def decides(task: str, **decision: str) -> Message:
    part = Part(data=ParseDict(decision, Value()))
    return Message(message_id="word", role=Role.ROLE_USER, task_id=task, parts=[part])


async def test_a_task_is_input_required_until_an_approver_answers_it(tmp_path):
    async with stage(tmp_path, rule=asks) as on, before(on.url, tmp_path / "keys.json") as url:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}),
            a=[use(call("counter_increment", name="kept", amount=2)), says("Here is a.")],
        )
        async with client_of(url, ANN) as ann, client_of(url, APPROVER) as bob:
            task = await sent(ann, request(message("Count it.")))
            assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
            shown = MessageToDict(task.status.message.parts[-1].data)
            assert shown["approval"]["request"]["arguments_json"] == '{"amount":2,"name":"kept"}'
            word = shown["answer_with"] | {"decision": "granted", "reason": "seen on the invoice"}
            with pytest.raises(UnsupportedOperationError, match="takes no further text"):
                await sent(ann, request(message("And now?", name="m2", task_id=task.id)))
            with pytest.raises(InvalidParamsError, match="waits for a decision"):
                await sent(bob, request(decides(task.id, **word | {"approval_id": "0" * 32})))
            with pytest.raises(InvalidParamsError, match="approval_id, arguments_sha256, decision, reason"):
                await sent(bob, request(decides(task.id, decision="granted")))
            with pytest.raises(Exception, match="403"):
                await sent(ann, request(decides(task.id, **word)))
            assert on.counter.counts()["increments"] == 0
            assert (await sent(bob, request(decides(task.id, **word)))).status.state == DONE
        assert on.counter.counts()["counts"] == {"kept": 2}


async def test_a_subscription_outlasts_the_wait_for_a_person(tmp_path):
    """The spec (3.1.6): the stream of a task that has not ended closes at its end."""
    async with stage(tmp_path, rule=asks) as on, before(on.url, tmp_path / "keys.json") as url:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}),
            a=[
                use(call("counter_increment", 1, name="kept")),
                use(call("counter_increment", 2, name="more")),
                says("Here is a."),
            ],
        )
        watching = client_of(url, ANN, streaming=True)
        async with client_of(url, ANN) as ann, client_of(url, APPROVER) as bob, watching as eve:
            task = await sent(ann, request(message("Count it.")))
            for number, name in enumerate(("kept", "more"), 1):
                assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
                events = eve.subscribe(SubscribeToTaskRequest(id=task.id))
                first = (await anext(events)).task
                shown = MessageToDict(first.status.message.parts[-1].data)
                assert f'"name":"{name}"' in shown["approval"]["request"]["arguments_json"]
                word = shown["answer_with"] | {"decision": "granted", "reason": f"{number}"}
                task = await sent(bob, request(decides(task.id, **word)))
                *_, last = [
                    event.status_update.status.state async for event in events if event.HasField("status_update")
                ]
                assert last == task.status.state
            assert last == DONE and on.counter.counts()["counts"] == {"kept": 1, "more": 1}
