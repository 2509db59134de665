"""An agent that knows OpenAI's SDK and nothing of us, on real processes: URL and key are all that it is given."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.doors.agent import Agent, log_stands, provider_counted
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALCULATE = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": "Calculates an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def test_an_agent_with_a_tool_runs_to_its_end_and_is_shown_as_a_task(agents: World) -> None:
    since, agent = await log_stands(agents), Agent(agents, "t1", "sums")
    messages: list[Any] = [user("What is 17 * 23?")]
    first = await agent.ask(messages, tools=[CALCULATE])
    [call] = first.choices[0].message.tool_calls
    product = str(eval(json.loads(call.function.arguments)["expression"]))
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": product}]
    task = agent.task
    second = await agent.ask(messages, tools=[CALCULATE])
    assert agent.task == task and second.choices[0].message.content
    await agent.end()
    shown = await agent.shown()
    assert shown["status"] == "succeeded" and shown["answer"] == second.choices[0].message.content
    assert await agent.spent() == await provider_counted(agents, since) == (2, shown_tokens(shown))
    code, timeline, _ = await agents.command("timeline", task, "--json")
    senders = {(row["from"], row["to"]) for row in json.loads(timeline)["messages"]}
    assert code == 0 and {("doors", "gateway"), ("planner", "doors"), ("doors", "model_gateway")} <= senders
    story = (await agent.said("why", task))["story"]
    (step,) = story["steps"]
    assert story["adopted"] and story["plans"][0]["origin"] == "adopted"
    assert [made["kind"] for made in step["calls"]] == ["model", "model"]
    assert step["calls"][0]["result"].startswith(f"asks for {call.function.name}")
    _, text, _ = await agents.command("why", task)
    assert "of the outside agent of t1-agent" in text and "asked a model" in text, text


def shown_tokens(shown: dict[str, Any]) -> int:
    return int(shown["usage"]["input_tokens"] + shown["usage"]["output_tokens"])


@pytest.mark.parametrize("killed", ["doors", "model_gateway"])
async def test_a_kill_in_mid_call_is_bridged_by_the_sdks_retry_and_paid_once(agents: World, killed: str) -> None:
    agent = Agent(agents, "t4", f"killed-{killed}")
    await agent.ask([user("What is 1 + 1?")])
    since = await log_stands(agents)
    question = f"what happens when {killed} is killed"
    await agents.arm("stall", match=question, after_chunks=1, delay_ms=6_000 if killed == "doors" else 60_000)
    waiting = asyncio.create_task(agent.ask([user(question)]))

    async def under_way() -> bool:
        return (await log_stands(agents)) > since

    await until(under_way, "the provider is asked")
    await agents.mesh.kill_replica(killed)
    assert (await waiting).choices[0].message.content
    # Who died in the middle of a stream asks again; what the first stream used is held until it is known to be lost.
    lost = int(killed == "model_gateway")
    assert (await provider_counted(agents, since))[0] == 1 + lost
    assert (await agent.spent(held=lost))[0] == 2
    await agent.end()
    assert (await agent.shown())["status"] == "succeeded"
