# mypy: ignore-errors
"""A smolagents program whose model asks for the same thing again and again. Arguments: kind of agent, its task."""

import os
import sys

from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool


@tool
def lookup(what: str) -> str:
    """Looks something up.

    Args:
        what: The thing to look up.
    """
    return f"nothing new of {what}"


kind, task = sys.argv[1:]
model = OpenAIModel("gpt-4.1-mini", api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
agent = {"tool": ToolCallingAgent, "code": CodeAgent}[kind](tools=[lookup], model=model, max_steps=13)
print(agent.run(task))
