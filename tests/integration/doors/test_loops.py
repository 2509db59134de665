"""Agents that go round in circles behind the doors: the watcher sees what they do, warns them and stops them."""

from typing import Any

import openai

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
    same = calls({"id": "call_0", "name": "lookup", "arguments": "{}"})
    async with whole_mesh(tmp_path, same, watch=True) as here:
        stopped = await refused(here)
        assert stopped.code == "loop_stopped" and "called lookup with the same arguments" in str(stopped)
        [warned] = await here.bodies(AgentWarned, "doors")
        assert warned.step_id == "agent" and "3 times" in warned.what
        assert {row.code for row in await here.bodies(TaskHalted, "planner")} == {"loop_stopped"}
        assert (await here.ended("halted")).failure.code == "loop_stopped"


async def test_a_budget_that_is_killed_between_comes_to_the_same_verdict(tmp_path):
    same = calls({"id": "call_0", "name": "lookup", "arguments": "{}"})
    turns = 0

    async def script(x):
        nonlocal turns
        turns += 1
        if turns == 3:
            here.mesh.kill("budget")
            await here.mesh.start("budget", "1")
        await same(x)

    async with whole_mesh(tmp_path, script, watch=True) as here:
        assert (await refused(here)).code == "loop_stopped"
        assert [row.code for row in await here.bodies(TaskHalted, "planner")] == ["loop_stopped"]


async def test_an_agent_that_polls_a_thing_that_moves_is_left_alone(tmp_path):
    polls = [calls({"id": f"call_{n}", "name": "lookup", "arguments": "{}"}) for n in range(12)]
    async with whole_mesh(tmp_path, *polls, says("done"), watch=True) as here:
        await loops(here, result="{} of 12 parts are done")
        await until(lambda: here.settled())
        assert await here.bodies(AgentWarned, "doors") == [] == await here.bodies(TaskHalted, "planner")
