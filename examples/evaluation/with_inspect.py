"""Evaluations of inspect-ai on a mesh: answers by tasks of the mesh, or by model calls through its doors."""

import os

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, solver

from bulkhead.client import Mesh

LATE = [Sample(input="What is refunded when a train is 60 minutes late?", target="40 EUR")]


@solver
def mesh_task():
    """The whole mesh answers: planner, workers, checker, documents and tools."""

    async def solve(state, generate):
        async with Mesh(os.environ["BULKHEAD_URL"], os.environ["BULKHEAD_API_KEY"]) as mesh:
            # A sample that is tried again is the same task, and not paid twice.
            submitted = await mesh.submit(state.input_text, idempotency_key=f"inspect/{state.uuid}", feature="eval")
            state.output.completion = (await submitted.result()).answer or ""
        return state

    return solve


@task
def refunds_by_tasks():
    return Task(dataset=LATE, solver=mesh_task(), scorer=includes())


@task
def refunds_by_calls():
    return Task(dataset=LATE, solver=generate(), scorer=includes())
