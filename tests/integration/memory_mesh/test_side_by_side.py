"""Steps, and calls of one turn, that do not wait for each other are under way at once: a task lasts as long as its
longest path. Each waits until all of them have begun, so that none ends if they take turns."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from bulkhead.journal.history import build_entries
from bulkhead.journal.story.fold import fold_story
from bulkhead_contracts.retrieval import RetrievalReplied
from tests.proof.ahead import chain_of
from tests.replay.stage import TENANT, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, says

STEPS, TIMEOUT_S = ("a", "b", "c"), 20.0


async def test_steps_that_do_not_build_on_each_other_are_under_way_at_once(tmp_path: Path) -> None:
    all_begun = asyncio.Barrier(len(STEPS))

    async def say_when_all_have_begun(exchange: Exchange) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await all_begun.wait()
        await says("Here it is.")(exchange)

    async with stage(tmp_path) as on:
        on.model.will(
            plan(*({"id": step} for step in STEPS), {"id": "d", "inputs": list(STEPS)}),
            a=[say_when_all_have_begun],
            b=[say_when_all_have_begun],
            c=[say_when_all_have_begun],
            d=[says("All of it.")],
        )
        assert (await on.run())["status"] == "succeeded"
        assert [on.model.count("work", step) for step in (*STEPS, "d")] == [1, 1, 1, 1]


async def test_calls_of_one_turn_are_under_way_at_once(tmp_path: Path) -> None:
    all_begun = threading.Barrier(len(STEPS), timeout=TIMEOUT_S)
    async with stage(tmp_path) as on:
        increment = on.counter.increment

        def count_when_all_have_begun(name: str, amount: int, key: str) -> tuple[int, dict[str, Any]]:
            all_begun.wait()
            return increment(name, amount, key)

        on.counter.increment = count_when_all_have_begun  # type: ignore[method-assign]
        calls = (call("counter_increment", number, name=name, amount=1) for number, name in enumerate(STEPS))
        on.model.will(plan({"id": "a", "tools": ["counter_increment"]}), a=[use(*calls), says("All are counted.")])
        assert (await on.run())["status"] == "succeeded"
        assert on.counter.counts() == {"counts": dict.fromkeys(STEPS, 1), "increments": 3, "repeats": 0}


async def test_the_query_of_the_next_search_is_embedded_while_a_step_runs(tmp_path: Path) -> None:
    embedded = asyncio.Event()

    async def embed(exchange: Exchange) -> None:
        await exchange.json(200, {"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 7}})

    async def say_when_it_is_embedded(exchange: Exchange) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await embedded.wait()
        await says("Here it is.")(exchange)

    async with ScriptedProvider() as endpoint:
        endpoint.will(embed)
        rag = {"embeddings_url": endpoint.url, "embeddings_price_usd_micros_per_mtok": 1_000_000}
        async with stage(tmp_path, rag_settings=rag, quotas={TENANT: {"retrievals_ahead": 1}}) as on:
            on.model.will(a=[say_when_it_is_embedded], c=[says("All of it.")])
            running = asyncio.create_task(on.run(plan=chain_of("harbour fees"), check=False))
            ahead = await on.mesh.wait_for_fact("mesh.rag.worker.*.demo.*.*", RetrievalReplied)
            assert ahead.asked_ahead and ahead.usage.cost_usd_micros == 7
            embedded.set()
            ended: dict[str, Any] = dict(await running)
            assert ended["status"] == "succeeded" and len(endpoint.asked) == 1
            assert ended["steps"][1]["usage"]["cost_usd_micros"] == 7, "what it cost is told with the step that used it"
            entries = build_entries((await on.history(ended["task_id"])).messages)
    steps = {step.step_id: step for step in fold_story(entries, ended["task_id"], 0, {}).steps}
    assert [(call.attempt, call.arguments) for call in steps["b"].calls] == [
        (0, "embedded ahead: harbour fees"),
        (1, "harbour fees"),
    ]
    assert steps["b"].usage.cost_usd_micros == 7 and steps["b"].took_ms < steps["a"].took_ms
