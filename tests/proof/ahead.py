"""Queries that are embedded ahead: the wall time of a chain of three steps, with and without, in one run.

An agent's step, a search that the plan makes, an agent's step that reads what it found. The model takes 300 ms for each
of its two answers, the vector of the query 300 ms: an endpoint far away. Documents, search and mesh are the real ones.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bulkhead.journal import quality
from tests.proof.__main__ import Figure
from tests.replay.stage import TENANT, Stage, stage
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, says

RUNS, DELAY_S, MOST_RATIO = 8, 0.3, 0.9
WITH_KEY, WITHOUT_KEY = "bk_ann_of_demo", "bk_eve_of_acme"
ANSWER = "The fare to Graz is EUR 12."


async def embed_slowly(exchange: Exchange) -> None:
    """A vector of each text, after a while."""
    await asyncio.sleep(DELAY_S)
    rows = [{"index": index, "embedding": [1.0, 0.5]} for index in range(len(exchange.body["input"]))]
    await exchange.json(200, {"data": rows, "usage": {"prompt_tokens": 7, "total_tokens": 7}})


async def answer_slowly(exchange: Exchange) -> None:
    """A short answer, after a while."""
    await asyncio.sleep(DELAY_S)
    await says(ANSWER)(exchange)


def chain_of(query: str) -> dict[str, Any]:
    """Three steps, of which the middle one searches for this whatever the first one says."""
    call = {"tool": "search_documents", "arguments_json": json.dumps({"query": query})}
    said = {"acceptance": "It is said.", "title": "Say it"}
    return {
        "steps": [
            {"id": "a", "instruction": "Greet.", **said},
            {"id": "b", "title": "", "instruction": "", "kind": "noop", "inputs": ["a"], "call": call},
            {"id": "c", "instruction": "Tell the fare.", "inputs": ["b"], **said},
        ]
    }


async def time_chain(on: Stage, key: str, query: str) -> float:
    """Milliseconds from the submission of a chain to its end."""
    async with on.client(key) as client:
        began = time.perf_counter()
        task = await client.submit("What is the fare?", plan=chain_of(query), check=False)
        document: Any = await task.wait_until_ended(30.0)
        assert document["status"] == "succeeded", document["failure"]
        return (time.perf_counter() - began) * 1000


async def time_chains(folder: Path) -> tuple[list[float], list[float], dict[str, int]]:
    """Durations with and without, in turns; and what the report says."""
    async with ScriptedProvider() as endpoint:
        endpoint.will(embed_slowly)
        rag_settings = {"embeddings_url": endpoint.url, "embeddings_price_usd_micros_per_mtok": 1_000_000}
        quotas = {TENANT: {"retrievals_ahead": 1}}
        async with stage(folder, rag_settings=rag_settings, quotas=quotas) as on:
            on.model.will(a=[answer_slowly], c=[answer_slowly])
            ahead, without = [], []
            for number in range(RUNS):
                # Every query is another one: a tenant's vectors are remembered.
                ahead.append(await time_chain(on, WITH_KEY, f"fare number {number}"))
                without.append(await time_chain(on, WITHOUT_KEY, f"fare number {number}"))
            report = await quality.read_quality(on.mesh.context("checker").bus, 0)
    return ahead, without, report.as_json({})["ahead"]


def measure() -> list[Figure]:
    """The ratio of the medians, and what was asked ahead."""
    with tempfile.TemporaryDirectory() as folder:
        ahead, without, told = asyncio.run(time_chains(Path(folder)))
    ratio = median(ahead) / median(without)
    words = f"{median(ahead):.0f} of {median(without):.0f} ms (medians), {ratio:.2f} times"
    counts = f"{told['asked']} asked, {told['used']} used, {told['saved_ms'] / RUNS:.0f} ms saved for each"
    return [
        Figure(
            "a chain of three steps with the search's query embedded ahead",
            words,
            f"at most {MOST_RATIO}",
            ratio <= MOST_RATIO,
        ),
        Figure("queries embedded ahead", counts, "all are used", told["used"] == told["asked"] == RUNS),
    ]
