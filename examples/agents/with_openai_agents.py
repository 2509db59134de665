"""OpenAI's Agents SDK, over the Responses API."""

import asyncio
import os
import sys

import agents
from calculator import calculate


async def main(questions: list[str]) -> None:
    agents.set_tracing_disabled(True)
    agent = agents.Agent(
        name="calculator",
        instructions="Answer in one sentence.",
        model=agents.OpenAIProvider().get_model(os.environ["MODEL"]),
        model_settings=agents.ModelSettings(max_tokens=400),
        tools=[agents.function_tool(calculate)],
    )
    said: list[agents.TResponseInputItem] = []
    for question in questions:
        run = agents.Runner.run_streamed(agent, [*said, {"role": "user", "content": question}])
        async for _ in run.stream_events():
            pass
        print(run.final_output, flush=True)
        said = run.to_input_list()


asyncio.run(main(sys.argv[1:]))
