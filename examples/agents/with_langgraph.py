"""LangGraph, with langchain-openai."""

import os
import sys

from calculator import calculate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


def main(questions: list[str]) -> None:
    tools = [tool(calculate)]
    model = ChatOpenAI(model=os.environ["MODEL"], max_tokens=400, streaming=True).bind_tools(tools)
    graph = StateGraph(MessagesState)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    agent = graph.compile(checkpointer=InMemorySaver())
    for question in questions:
        said = {"messages": [{"role": "user", "content": question}]}
        found = agent.invoke(said, {"configurable": {"thread_id": "1"}})
        print(found["messages"][-1].content, flush=True)


main(sys.argv[1:])
