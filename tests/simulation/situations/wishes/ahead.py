"""Searches of a plan whose queries are embedded ahead, one of which a branch never begins.

In: a draw. Out: a wish of the tenant `keen`, whose quota has searches asked ahead, and an endpoint that gives vectors.
Laws, of every run: nothing is asked ahead for a tenant that has not switched it on, twice for a step, or beyond the
quota; what is asked ahead finds no passage; a step's answer holds none of a document that was erased before it asked; a
query that was embedded for a step is paid once while rag lives.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx

from bulkhead_contracts.plan import Branch, BranchCase, Plan, PlanStep, StepCall
from bulkhead_services.rag import app as rag
from bulkhead_services.rag.settings import Settings
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.laws.record import Record
from tests.simulation.mesh.chaos import Chaos
from tests.simulation.scenario import Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

NAME, TENANT, MOST = "ahead0", "keen", 2
USD_MICROS_PER_TOKEN = 1
QUERIES = {"b": "harbour fees", "never": "harbour water", "third": "water included"}


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """An agent's step, a branch, and a search for each of its cases; a third search beyond the quota."""
    cases = (BranchCase(test="contains", text="no model says this", steps=("never",)),)
    steps = (
        scripted_step("a", NAME, {"calls": []}),
        PlanStep(
            id="which",
            title="which",
            instruction="",
            kind="noop",
            inputs=("a",),
            branch=Branch(of="a", cases=cases, otherwise=("b",)),
        ),
        *(_search(name, ("which",)) for name in draw.sample(("b", "never"), 2)),
        _search("third", ("a",)),
        scripted_step("z", NAME, {"calls": []}, inputs=("b", "never", "third")),
    )
    wish = Wish(
        name=NAME,
        tenant=TENANT,
        plan=Plan(steps=steps),
        check=draw.random() < 0.5,
        submit_after_s=draw.uniform(0, 2),
        cancel_after_s=draw.uniform(0.1, 2) if draw.random() < 0.15 else None,
    )
    return replace(scenario, wishes=(*scenario.wishes, wish))


def _search(name: str, inputs: tuple[str, ...]) -> PlanStep:
    call = StepCall(tool="search_documents", arguments_json=json.dumps({"query": QUERIES[name]}))
    return PlanStep(id=name, title=name, instruction="", kind="noop", inputs=inputs, call=call)


class Vectors(httpx.AsyncBaseTransport):
    """An endpoint that gives a vector after a while, or not at all."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One vector for each text."""
        texts = json.loads(await request.aread())["input"]
        how = self._chaos.strikes("provider", f"vectors:{texts[0]}")
        await asyncio.sleep(0.3 if how is None else how * 8)
        if how is not None:
            return httpx.Response(503, json={"error": "overloaded"})
        rows = [{"index": index, "embedding": [1.0, 0.5]} for index in range(len(texts))]
        return httpx.Response(200, json={"data": rows, "usage": {"prompt_tokens": sum(map(len, texts))}})


def build_rag(context: Any, settings: Settings, scenario: Scenario, chaos: Chaos) -> Any:
    """Rag; in runs of this situation with vectors."""
    if not any(wish.name == NAME for wish in scenario.wishes):
        return rag.build(context, settings)
    changes = {
        "embeddings_url": "http://127.0.0.1:9/v1",
        "embeddings_price_usd_micros_per_mtok": USD_MICROS_PER_TOKEN * 1_000_000,
    }
    return rag.build(context, settings.model_copy(update=changes), Vectors(chaos))


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    tenants = {task: wish.tenant for wish, task in wishes(record)}
    asked: dict[str, set[str]] = {}
    for task, rows in said(record, "INBOX_RAG", "mesh.retrieval.requested").items():
        steps = [body(row)["step_id"] for row in rows if body(row).get("asked_ahead")]
        if steps and tenants.get(task, TENANT) != TENANT:
            yield f"{task}: asked ahead for a tenant that does not want it"
        if len(steps) > MOST or len(set(steps)) < len(steps):
            yield f"{task}: asked ahead for {steps}"
        asked[task] = set(steps)
    used: dict[str, list[str]] = {}
    for row in of(record, "INBOX_WORKER", "mesh.retrieval.replied"):
        reply, task = body(row), task_of(row.subject)
        if reply.get("asked_ahead") and reply.get("passages"):
            yield f"{task}: {reply['step_id']} was given passages before it asked"
        if reply.get("saved_ms") is not None:
            used.setdefault(task, []).append(reply["step_id"])
            if reply["step_id"] not in asked.get(task, ()):
                yield f"{task}: {reply['step_id']} used what nobody asked ahead"
    if is_calm(record):
        for task, steps in used.items():
            paid = [row["call_id"] for row in _paid(record, task)]
            if len(paid) != len(set(paid)) or len(set(steps)) < len(steps):
                yield f"{task}: {steps} used queries that were paid as {paid}"


def _paid(record: Record, task: str) -> Iterator[dict[str, Any]]:
    """Reservations of rag in a task."""
    for row in of(record, "INBOX_JOURNAL", "mesh.budget.reserved"):
        if task_of(row.subject) == task and body(row)["service"] == "rag":
            yield body(row)


SITUATION = Situation("ahead", 0.05, add, None, complain)
