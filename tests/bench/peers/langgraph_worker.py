"""Full agent steps of LangGraph: a checkpoint in PostgreSQL after every node, written before the next one runs."""

import asyncio
import os
import time
import uuid
from typing import TypedDict

from agent_step import INSTRUCTION, JUDGE, MODEL, Verdict, calculate, judge_prompt, serve_orders
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

CONNECTIONS = 16
NODES_PER_STEP = 4


class State(TypedDict):
    """Of a chain; each step begins a conversation of its own."""

    left: int
    starts: list
    messages: list


calculator = tool(calculate)
model = ChatOpenAI(model=MODEL)
worker, judge = model.bind_tools([calculator]), model.with_structured_output(Verdict, method="json_schema")


async def call_model(state):
    """The first call of a step, or the one after its tool."""
    if state["messages"]:
        return {"messages": [*state["messages"], await worker.ainvoke(state["messages"])]}
    messages, starts = [HumanMessage(INSTRUCTION)], [*state["starts"], time.perf_counter()]
    return {"messages": [*messages, await worker.ainvoke(messages)], "starts": starts}


async def call_tool(state):
    """What the model asked for."""
    calls = state["messages"][-1].tool_calls
    results = [ToolMessage(await calculator.ainvoke(call["args"]), tool_call_id=call["id"]) for call in calls]
    return {"messages": [*state["messages"], *results]}


async def judge_result(state):
    """The last node of a step."""
    prompt = judge_prompt(state["messages"][-1].content)
    verdict = await judge.ainvoke([SystemMessage(JUDGE), HumanMessage(prompt)])
    assert verdict.verdict == "accept", verdict
    return {"messages": [], "left": state["left"] - 1}


def make_graph(checkpointer):
    """model -> tool -> model -> judge, until no step is left."""
    graph = StateGraph(State)
    for node in (call_model, call_tool, judge_result):
        graph.add_node(node)
    graph.add_edge(START, "call_model")
    graph.add_conditional_edges(
        "call_model", lambda state: "call_tool" if state["messages"][-1].tool_calls else "judge_result"
    )
    graph.add_edge("call_tool", "call_model")
    graph.add_conditional_edges("judge_result", lambda state: "call_model" if state["left"] else END)
    return graph.compile(checkpointer=checkpointer)


async def main():
    """See the module."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    url = os.environ["BENCH_URL"]
    async with AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options) as pool:
        checkpointer = AsyncPostgresSaver(pool)
        await checkpointer.setup()
        graph = make_graph(checkpointer)

        async def chain(steps):
            config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": steps * NODES_PER_STEP + 1}
            begin = {"left": steps, "starts": [], "messages": []}
            return (await graph.ainvoke(begin, config, durability="sync"))["starts"]

        await serve_orders(chain)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    asyncio.run(main())
