"""Agents that go round in circles behind the doors: the watcher sees what they do, warns them and stops them."""

from typing import Any

import openai
import pytest

from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.budget import TaskHalted
from tests.eventually import until
from tests.integration.doors.whole_mesh import Whole, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import calls, says

LOOKUP = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}
ASK = {"role": "user", "content": "find it"}
MOST = 60


async def loops(here: Whole, *, result: str = "nothing new") -> None:
    """An agent that does what its model says, until it is stopped or has had enough."""
    client, messages = here.client(), list[Any]([ASK])
    for number in range(MOST):
        answer = await client.chat.completions.create(model="default", messages=messages, tools=[LOOKUP])
        said = answer.choices[0].message
        if not said.tool_calls:
            return
        call = said.tool_calls[0]
        messages += [said, {"role": "tool", "tool_call_id": call.id, "content": result.format(number)}]


async def refused(here: Whole) -> openai.PermissionDeniedError:
    try:
        await loops(here)
    except openai.PermissionDeniedError as error:
        return error
    raise AssertionError("the agent went on")


async def test_an_agent_that_loops_is_warned_then_stopped(tmp_path):
    same = same_call()
    async with whole_mesh(tmp_path, same, watch=True) as here:
        stopped = await refused(here)
        assert stopped.code == "loop_stopped" and "called lookup with the same arguments" in str(stopped)
        [warned] = await here.bodies(AgentWarned, "doors")
        assert warned.step_id == "agent" and "3 times" in warned.what
        assert {row.code for row in await here.bodies(TaskHalted, "planner")} == {"loop_stopped"}
        assert (await here.ended("halted")).failure.code == "loop_stopped"


async def converse(here: Whole, reply: str) -> None:
    """Someone who gives the same reply to each answer, and hands back as text whatever the model said."""
    client, messages = here.client(), list[Any]([ASK])
    for number in range(MOST // 4):
        answer = (await client.chat.completions.create(model="default", messages=messages)).choices[0].message
        text = answer.content or f"Calling tools: [{{'id': 'call_{number}', 'name': 'lookup', 'arguments': {{}}}}]"
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": reply}]


async def test_a_loop_that_a_framework_writes_as_text_is_stopped(tmp_path):
    async with whole_mesh(tmp_path, same_call(), watch=True) as here:
        with pytest.raises(openai.PermissionDeniedError, match="called lookup with the same arguments") as stopped:
            await converse(here, "Observation: nothing new")
        assert stopped.value.code == "loop_stopped" and len(here.provider.asked) <= 6


@pytest.mark.parametrize("reply", [ASK["content"], "and now?"])
async def test_a_person_who_repeats_a_question_is_not_stopped(tmp_path, reply):
    async with whole_mesh(tmp_path, says("Like this:\n```sh\nls\n```"), watch=True) as here:
        await converse(here, reply)
        assert await here.bodies(AgentWarned, "doors") == []


def same_call() -> Any:
    return calls({"id": "call_0", "name": "lookup", "arguments": "{}"})


async def answers_once_warned(here: Whole, sent: list[Any] | None = None, **more: Any) -> list[str]:
    """Warnings in the headers of an agent's answers. sent: takes the messages that were answered with the first."""
    client, messages, told = here.client(**more), list[Any]([ASK]), list[str]()
    for _ in range(3):
        answer = await client.chat.completions.with_raw_response.create(
            model="default", messages=messages, tools=[LOOKUP]
        )
        told.append(answer.headers.get("x-bulkhead-warning", ""))
        said = answer.parse().choices[0].message
        messages += [said, {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "nothing new"}]
    final = {"role": "user", "content": "and now?"}
    await client.chat.completions.create(model="default", messages=messages)  # Brings the third result.
    await until(lambda: here.bodies(AgentWarned, "doors"))
    for number in range(2):
        messages = [*messages, {"role": "assistant", "content": "hm"}, {**final, "content": f"and now? {number}"}]
        answer = await client.chat.completions.with_raw_response.create(model="default", messages=messages)
        told.append(answer.headers.get("x-bulkhead-warning", ""))
        if told[-1] and sent is not None:
            sent += messages
    return told


def notes_sent(here: Whole) -> list[str]:
    rows = [row for one in here.provider.asked for row in one.body["messages"] if row["role"] == "system"]
    return [row["content"] for row in rows]


async def test_a_warning_is_shown_to_the_agent_once_and_said_in_a_header(tmp_path):
    async with whole_mesh(tmp_path, *[same_call()] * 3, says("hm"), watch=True) as here:
        told = await answers_once_warned(here)
        assert told[:3] == ["", "", ""] and "3 times in a row" in told[3] and told[4] == ""
        [note] = notes_sent(here)
        assert note.startswith("Note of Bulkhead") and told[3] in note
        assert here.provider.asked[4].body["messages"][-1]["content"] == note, "behind all that the agent said"


@pytest.mark.parametrize("by", ["setting", "header"])
async def test_a_warning_in_the_conversation_can_be_switched_off(tmp_path, by):
    settings = {"warning_notes": False} if by == "setting" else {}
    client = {"default_headers": {"X-Bulkhead-Notes": "off"}} if by == "header" else {}
    async with whole_mesh(tmp_path, *[same_call()] * 3, says("hm"), watch=True, **settings) as here:
        told = await answers_once_warned(here, **client)
        assert told[3] and notes_sent(here) == []


async def test_a_retry_of_a_warned_call_is_the_same_call(tmp_path):
    async with whole_mesh(tmp_path, *[same_call()] * 3, says("hm"), watch=True) as here:
        sent = list[Any]()
        await answers_once_warned(here, sent)
        asked = len(here.provider.asked)
        answer = await here.client().chat.completions.create(
            model="default", messages=sent, extra_headers={"x-stainless-retry-count": "1"}
        )
        assert answer.choices[0].message.content == "hm" and len(here.provider.asked) == asked
