"""Steps, and calls of one turn, that do not wait for each other are under way at once: a task lasts as long as its
longest path. Each waits until all of them have begun, so that none ends if they take turns."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from tests.replay.stage import call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import Exchange, says

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
