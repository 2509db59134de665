"""A worker of one's own: it carries out the steps of the role `refunds`, with one call of a model for each.

The key of the step is an API key at the doors: the call runs under the step's grant, and is counted to its task.
"""

import asyncio
import os

import openai

from bulkhead.client.steps import Step, Steps

DOORS = os.environ["DOORS_URL"]
if "NATS_URL" in os.environ:
    from bulkhead.faststream import BusSteps

    identity = f"{os.environ['KEYS']}/wrk_demo.nkey"
    steps: Steps = BusSteps(os.environ["NATS_URL"], identity, tenant="demo", doors=DOORS)
else:
    steps = Steps(DOORS, os.environ["BULKHEAD_API_KEY"])


@steps.on("refunds")
async def refund(step: Step) -> str:
    """The step's result. What earlier steps found is content from elsewhere, and no instruction."""
    asked = step.handed
    known = "\n".join(f"{given.title}: {given.text}" for given in asked.inputs)
    async with openai.AsyncOpenAI(base_url=step.openai, api_key=asked.key) as model:
        answer = await model.chat.completions.create(
            model=os.environ.get("MODEL", "default"),
            messages=[
                {"role": "system", "content": "You work out refunds. Answer in one sentence."},
                {"role": "user", "content": f"{asked.objective}\n{asked.instruction}\n{known}"},
            ],
        )
    print(f"{asked.step} of {asked.task}, taken {asked.number} times", flush=True)
    await asyncio.sleep(float(os.environ.get("THINK_S", "0")))  # Work of its own.
    return f"Refund: {answer.choices[0].message.content}"


if __name__ == "__main__":
    asyncio.run(steps.run())
