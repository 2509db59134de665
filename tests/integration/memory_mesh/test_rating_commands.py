"""`bulkhead rate`, `quality`, `tasks --rated`, `eval from-tasks --rated` and `eval online` over a whole mesh."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app
from tests.integration.memory_mesh.test_ratings import FARES, MARKER, answer_task
from tests.replay.stage import EVALUATOR, Stage, stage


async def run(on: Stage, *words: str, key: str = "bk_ann_of_demo", code: int = 0) -> str:
    at = ("--url", on.url, "--api-key", key)
    result = await asyncio.to_thread(CliRunner().invoke, app, [*words, *at], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.stdout if not code else result.output


@pytest.mark.slow
async def test_an_answer_is_rated_judged_counted_and_made_a_case(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        task = await answer_task(on, f"The fare to Graz is EUR 12 [#{MARKER}].")
        assert "is rated bad; people: 0 good, 1 bad" in await run(on, "rate", task, "bad", "--comment", "it is 14 now")
        await run(on, "rate", task, "great", code=2)
        assert task in await run(on, "tasks", "--rated", "bad")
        assert task not in await run(on, "tasks", "--rated", "good,none")
        online = ("eval", "online", "--share", "100%", "--budget-usd", "1/day", "--once")
        assert f"{task} good: grounded: each sentence has a source" in await run(on, *online, key=EVALUATOR)
        assert await run(on, *online, key=EVALUATOR) == "", "it is judged once"
        assert "gives no rating of the kind judge" in await run(on, *online, "--json", code=4)
        assert "write a percentage" in await run(on, "eval", "online", "--share", "lots", code=2)

        table = await run(on, "quality", "--by", "model", "--since", "1h")
        [row] = [line for line in table.splitlines() if "offline-rules-1" in line]
        assert "100% [21% 100%]" in row and "0% [0% 79%] of 1" in row
        assert json.loads(await run(on, "quality", "--json"))["total"]["ratings"]["advice"] == 1
        [case] = [json.loads(line) for line in (await run(on, "eval", "from-tasks", "--rated", "bad")).splitlines()]
        assert case["tags"] == ["production", "rated-bad"] and case["origin"].endswith("bad: it is 14 now")
        assert not await run(on, "eval", "from-tasks", "--rated", "good")
