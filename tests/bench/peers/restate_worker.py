"""Full agent steps on Restate: each model call and each tool call is a `ctx.run`, an entry of its journal.

Without an agent framework: Restate's integration of pydantic-ai builds its schemas anew at every call, and its own
integration should not flatter us.
"""

import asyncio
import json
import os
import time

import httpx
import restate
from agent_step import INSTRUCTION, JUDGE, MODEL, Verdict, calculate, judge_prompt, serve_orders
from hypercorn.asyncio import serve
from hypercorn.config import Config
from openai import AsyncOpenAI

TIMEOUT_S = 300
PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TOOL = {"name": "calculate", "description": calculate.__doc__, "parameters": PARAMETERS}
WITH_TOOL = {"tools": [{"type": "function", "function": TOOL}]}
SCHEMA = {"name": "verdict", "schema": Verdict.model_json_schema()}
AS_VERDICT = {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}
client = AsyncOpenAI()
service = restate.Service(os.environ["BENCH_SERVICE"])


async def ask_model(messages, options):
    """One call; the assistant's message."""
    answer = await client.chat.completions.create(model=MODEL, messages=messages, **options)
    return answer.choices[0].message.model_dump(exclude_none=True)


async def run_step(ctx):
    """Model and tools in turns until there is a result, then the judge."""
    messages = [{"role": "user", "content": INSTRUCTION}]
    while (message := await ctx.run_typed("model", ask_model, messages=messages, options=WITH_TOOL)).get("tool_calls"):
        messages.append(message)
        for call in message["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            result = await ctx.run_typed("tool", calculate, **arguments)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    prompts = [{"role": "system", "content": JUDGE}, {"role": "user", "content": judge_prompt(message["content"])}]
    verdict = await ctx.run_typed("judge", ask_model, messages=prompts, options=AS_VERDICT)
    assert Verdict.model_validate_json(verdict["content"]).verdict == "accept", verdict


@service.handler()
async def chain(ctx: restate.Context, steps: int) -> list[float]:
    """See agent_step.Chain."""
    starts = []
    for _ in range(steps):
        starts.append(time.perf_counter())
        await run_step(ctx)
    return starts


async def main():
    """Serve the handler to Restate, and ask Restate for it."""
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ['BENCH_PORT']}"]
    serving = asyncio.create_task(serve(restate.app([service]), config))
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=None)) as http:

        async def ask_chain(steps):
            url = f"{os.environ['BENCH_URL']}/{service.name}/chain"
            return (await http.post(url, json=steps)).raise_for_status().json()

        await serve_orders(ask_chain)
    serving.cancel()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    asyncio.run(main())
