"""Full agent steps of pydantic-ai on DBOS: each model call and each tool call is a step of a DBOS workflow."""

import asyncio
import os
import time

from agent_step import INSTRUCTION, JUDGE, MODEL, Verdict, calculate, judge_prompt, serve_orders
from dbos import DBOS
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.openai import OpenAIChatModel

DBOS(
    config={
        "name": "bench",
        "system_database_url": os.environ["BENCH_URL"],
        "executor_id": os.environ["BENCH_EXECUTOR"],
        "application_version": "1",
        "log_level": "ERROR",
    }
)
model = OpenAIChatModel(MODEL)
worker = Agent(model, name="worker", tools=[DBOS.step()(calculate)], capabilities=[DBOSDurability()])
judge = Agent(
    model,
    name="judge",
    system_prompt=JUDGE,
    output_type=NativeOutput(Verdict, name="verdict"),
    capabilities=[DBOSDurability()],
)


@DBOS.workflow()
async def chain(steps):
    """See agent_step.Chain."""
    starts = []
    for _ in range(steps):
        starts.append(time.perf_counter())
        result = (await worker.run(INSTRUCTION)).output
        verdict = (await judge.run(judge_prompt(result))).output
        assert verdict.verdict == "accept", verdict
    return starts


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})  # One process per core, as its docs advise.
    DBOS.launch()
    asyncio.run(serve_orders(chain))
