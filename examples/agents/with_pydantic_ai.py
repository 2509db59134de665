"""pydantic-ai."""

import asyncio
import os
import sys

from calculator import calculate
from pydantic_ai import Agent, ModelMessage
from pydantic_ai.models.openai import OpenAIChatModel


async def main(questions: list[str]) -> None:
    agent = Agent(
        OpenAIChatModel(os.environ["MODEL"]),
        instructions="Answer in one sentence.",
        tools=[calculate],
        model_settings={"max_tokens": 400},
    )
    said: list[ModelMessage] = []
    for question in questions:
        async with agent.run_stream(question, message_history=said) as answer:
            async for text in answer.stream_text(delta=True):
                print(text, end="", flush=True)
            print()
            said = answer.all_messages()


asyncio.run(main(sys.argv[1:]))
