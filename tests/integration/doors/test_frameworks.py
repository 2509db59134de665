"""Agents of frameworks that nobody here wrote, at the model door: nothing is given but a URL and a key."""

import json

import pytest

from bulkhead.model_apis.views import view_in_chat_form
from bulkhead_services.doors.port import DoorRefusal
from tests.integration.doors.desk import KEY, Reply, calls, served, text

REFUSED = Reply(refused=DoorRefusal(403, "refused_by_budget", "the run has spent its ceiling of $2.00"))


def weather(city: str) -> str:
    """The weather of a city."""
    return f"22 C in {city}"


def pydantic_ai_model(door, api):
    """A model of pydantic-ai."""
    if api == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel("large", provider=AnthropicProvider(base_url=door.anthropic, api_key=KEY))
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    kind = OpenAIChatModel if api == "chat" else OpenAIResponsesModel
    return kind("large", provider=OpenAIProvider(base_url=door.openai, api_key=KEY))


@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
async def test_pydantic_ai(api):
    from pydantic_ai import Agent
    from pydantic_ai.exceptions import ModelHTTPError

    final = calls("final_result", city="Rome", degrees=22)
    async with served(calls("weather", city="Rome"), final, text("sun", "ny"), REFUSED) as door:
        from pydantic import BaseModel

        class Report(BaseModel):
            city: str
            degrees: int

        model = pydantic_ai_model(door, api)
        agent = Agent(model, system_prompt="Be brief.", tools=[weather], output_type=Report)
        found = await agent.run("How is it in Rome?")
        assert found.output == Report(city="Rome", degrees=22)
        assert found.usage.input_tokens and found.usage.output_tokens == 60
        first, second = (view_in_chat_form(one.api, one.messages, one.options) for one in door.desk.asked)
        assert {row["function"]["name"] for row in first.options["tools"]} == {"weather", "final_result"}
        assert second.messages[-1]["content"] == "22 C in Rome" and second.messages[-1]["role"] == "tool"
        async with Agent(model).run_stream("And now?") as streamed:
            assert "".join([piece async for piece in streamed.stream_text(delta=True)]) == "sunny"
        with pytest.raises(ModelHTTPError, match="ceiling"):
            await agent.run("Again?")
        assert len(door.desk.asked) == 4


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_agents(api):
    import agents
    import openai

    agents.set_tracing_disabled(True)
    tool = agents.function_tool(weather)
    async with (
        served(calls("weather", city="Rome"), text("22 degrees"), text("sun", "ny"), REFUSED) as door,
        openai.AsyncOpenAI(base_url=door.openai, api_key=KEY) as sdk,
    ):
        kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
        agent = agents.Agent(name="reporter", instructions="Be brief.", tools=[tool], model=kind("large", sdk))
        found = await agents.Runner.run(agent, "How is it in Rome?")
        assert found.final_output == "22 degrees"
        asked = door.desk.asked[1]
        result = view_in_chat_form(asked.api, asked.messages, {}).messages[-1]
        assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "call_1", "22 C in Rome")
        streamed = agents.Runner.run_streamed(agent, "And now?")
        events = [event async for event in streamed.stream_events()]
        assert streamed.final_output == "sunny" and events
        with pytest.raises(openai.PermissionDeniedError, match="ceiling"):
            await agents.Runner.run(agent, "Again?")
        assert len(door.desk.asked) == 4 and json.dumps(door.desk.asked[0].options["tools"])


async def test_langgraph():
    import openai
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    async with served(calls("weather", city="Rome"), text("22 degrees"), text("sun", "ny"), REFUSED) as door:
        tools = [tool(weather)]
        model = ChatOpenAI(model="large", base_url=door.openai, api_key=KEY)
        bound = model.bind_tools(tools)

        async def agent(state: MessagesState) -> dict[str, list[object]]:
            return {"messages": [await bound.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("agent", agent)
        graph.add_node("tools", ToolNode(tools))
        graph.add_edge(START, "agent")
        graph.add_conditional_edges("agent", tools_condition)
        graph.add_edge("tools", "agent")
        asked = {"messages": [{"role": "user", "content": "How is it in Rome?"}]}
        found = await graph.compile().ainvoke(asked)
        assert found["messages"][-1].content == "22 degrees"
        result = door.desk.asked[1].messages[-1]
        assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "call_1", "22 C in Rome")
        assert "".join([str(piece.content) async for piece in model.astream("And now?")]) == "sunny"
        with pytest.raises(openai.PermissionDeniedError, match="ceiling"):
            await graph.compile().ainvoke(asked)
        assert len(door.desk.asked) == 4


async def test_agno():
    from agno.agent import Agent
    from agno.models.openai import OpenAIChat
    from agno.run.base import RunStatus

    async with served(calls("weather", city="Rome"), text("22 degrees"), text("sun", "ny"), REFUSED) as door:
        model = OpenAIChat(id="large", base_url=door.openai, api_key=KEY)
        agent = Agent(model=model, tools=[weather], telemetry=False)
        found = await agent.arun("How is it in Rome?")
        assert (found.status, found.content) == (RunStatus.completed, "22 degrees")
        result = door.desk.asked[1].messages[-1]
        assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "call_1", "22 C in Rome")
        events = [event async for event in agent.arun("And now?", stream=True)]
        assert "".join(event.content for event in events if event.event == "RunContent") == "sunny"
        refused = await agent.arun("Again?")
        assert refused.status == RunStatus.error and "ceiling" in str(refused.content)
        assert len(door.desk.asked) == 4
