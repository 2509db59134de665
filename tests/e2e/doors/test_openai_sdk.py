"""An agent that knows OpenAI's SDK and nothing of us, on real processes: URL and key are all that it is given."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.doors.agent import MODEL, Agent, log_stands, provider_counted
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
    senders = {(row["from"], row["to"]) for row in json.loads(timeline)}
    assert code == 0 and {("doors", "gateway"), ("planner", "doors"), ("doors", "model_gateway")} <= senders
    story = await agent.said("why", task)
    (step,) = story["steps"]
    assert story["adopted"] and story["plans"][0]["origin"] == "adopted"
    assert [made["kind"] for made in step["calls"]] == ["model", "model"]
    assert step["calls"][0]["result"].startswith(f"asks for {call.function.name}")
    _, text, _ = await agents.command("why", task)
    assert "of the outside agent of t1-agent" in text and "asked a model" in text, text


def shown_tokens(shown: dict[str, Any]) -> int:
    return int(shown["usage"]["input_tokens"] + shown["usage"]["output_tokens"])


@pytest.mark.nightly
async def test_an_agent_is_stopped_at_its_ceiling_within_one_call(agents: World) -> None:
    since = await log_stands(agents)
    agent = Agent(agents, "t2", "greedy", **{"X-Bulkhead-Limit-Tokens": "1500"})
    with pytest.raises(openai.PermissionDeniedError) as refused:
        for number in range(50):
            await agent.ask([user(f"{number}: What is 17 * 23?")], max_tokens=400)
    assert refused.value.code == "refused_by_budget"
    calls, tokens = await provider_counted(agents, since)
    assert 1 <= calls < 50 and 1500 - 2 * 500 < tokens <= 1500
    assert await agent.spent() == (calls, tokens)
    with pytest.raises(openai.PermissionDeniedError):
        await agent.ask([user("once more")])
    assert (await provider_counted(agents, since))[0] == calls, "the SDK asked again, or another run was begun"
    code, why, _ = await agents.command("why", agent.task)
    assert code == 0 and "bulkhead topup" in why
    await agent.said("topup", agent.task, "--tokens", "5000", "--reason", "worth it")
    assert (await agent.ask([user("once more")])).choices[0].message.content


@pytest.mark.nightly
async def test_a_stream_is_halted_in_the_middle_by_an_operator_and_goes_on_when_it_is_lifted(agents: World) -> None:
    agent = Agent(agents, "t3", "halted")
    await agent.ask([user("What is 1 + 1?")])
    await agents.arm("stall", match="a long story", after_chunks=3, delay_ms=30_000)
    stream = await agent.client.chat.completions.create(model=MODEL, messages=[user("a long story")], stream=True)
    heard = ""
    with pytest.raises(openai.APIError) as halted:
        async for chunk in stream:
            if not heard and chunk.choices and chunk.choices[0].delta.content:
                heard = chunk.choices[0].delta.content
                await agent.said("halt", "--task", agent.task, "--reason", "look at it first")
    assert halted.value.code == "halted" and "look at it first" in halted.value.message and heard
    with pytest.raises(openai.PermissionDeniedError):
        await agent.ask([user("and now?")])
    assert (await agent.shown())["status"] == "paused"
    await agent.said("resume", "--task", agent.task)
    assert (await agent.ask([user("and now?")])).choices[0].message.content


@pytest.mark.nightly
async def test_a_stream_whose_reader_goes_away_is_cut_and_settled(agents: World) -> None:
    agent = Agent(agents, "t6", "gone")
    await agent.ask([user("What is 1 + 1?")])
    await agents.arm("stall", match="a tale", after_chunks=3, delay_ms=120_000)
    stream = await agent.client.chat.completions.create(model=MODEL, messages=[user("a tale")], stream=True)
    await anext(aiter(stream))
    await stream.close()
    assert (await agent.spent())[0] == 2, "nothing is held any more, long before the provider would have gone on"


@pytest.mark.nightly
async def test_an_agent_that_loops_is_warned_then_stopped_and_why_says_so(agents: World) -> None:
    agent = Agent(agents, "t5", "loops")
    messages: list[Any] = [user("What is 17 * 23?")]
    await agent.ask(messages, tools=[CALCULATE])
    with pytest.raises(openai.PermissionDeniedError) as stopped:
        for number in range(60):
            # Its tool is out of order, and it asks again.
            function = {"name": "calculate", "arguments": '{"expression": "17 * 23"}'}
            call = {"id": f"call_{number}", "type": "function", "function": function}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": "Error: out of order"},
            ]
            await agent.ask(messages, tools=[CALCULATE])
    assert stopped.value.code == "loop_stopped" and "called calculate with the same arguments" in stopped.value.message
    shown = await agent.shown()
    assert shown["status"] == "halted" and shown["failure"]["code"] == "loop_stopped"
    code, why, _ = await agents.command("why", agent.task)
    assert code == 0 and "called calculate with the same arguments" in why
    code, timeline, _ = await agents.command("timeline", agent.task, "--json")
    kinds = {(row["from"], row["to"], row["type"]) for row in json.loads(timeline)}
    assert code == 0 and {("budget", "planner", "mesh.budget.task_halted.v1")} <= kinds
    assert ("budget", "doors", "mesh.agent.warned.v1") in kinds


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


@pytest.mark.parametrize("killed", ["doors", "model_gateway"])
async def test_a_kill_in_mid_stream_is_bridged_or_told_and_the_question_is_paid_once(
    agents: World, killed: str
) -> None:
    agent = Agent(agents, "t4", f"cut-{killed}")
    await agent.ask([user("What is 1 + 1?")])
    since = await log_stands(agents)
    asked = [user(f"a story that is cut when {killed} is killed")]
    await agents.arm("stall", match=asked[0]["content"], after_chunks=3, delay_ms=6_000)
    stream = await agent.client.chat.completions.create(model=MODEL, messages=asked, stream=True)
    first, heard, ended = "", "", False
    with contextlib.suppress(openai.APIError, httpx.TransportError):
        async for chunk in stream:
            for choice in chunk.choices:
                heard += choice.delta.content or ""
                ended = ended or choice.finish_reason is not None
            if heard and not first:
                first = heard
                await agents.mesh.kill_replica(killed)
    # Whoever holds the connection asks the model gateway's next replica; what the client has heard is not said again.
    assert first and ended == (killed == "model_gateway"), "a cut stream never looks whole"
    if not ended:
        again = await agent.client.chat.completions.create(model=MODEL, messages=asked, stream=True)
        chunks = [chunk async for chunk in again if chunk.choices]
        told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop" and told.startswith(heard)
    # What the first stream used is held until it is known to be lost, where who was killed read it.
    lost = int(killed == "model_gateway")
    assert (await provider_counted(agents, since))[0] == 1 + lost
    assert (await agent.spent(held=lost))[0] == 2
