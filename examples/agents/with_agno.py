"""Agno."""

import os
import sys

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.openai import OpenAIChat
from calculator import calculate


def main(questions: list[str]) -> None:
    agent = Agent(
        model=OpenAIChat(id=os.environ["MODEL"], max_tokens=400),
        tools=[calculate],
        db=InMemoryDb(),
        add_history_to_context=True,
        telemetry=False,
    )
    for question in questions:
        for event in agent.run(question, stream=True):
            print(getattr(event, "content", None) or "", end="", flush=True)
        print()


main(sys.argv[1:])
