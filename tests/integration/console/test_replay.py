"""Replay from the page of an ended task: its commands run as they stand there, against the same mesh."""

import asyncio
import html
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app
from tests.integration.console.browsing import browsing
from tests.replay.stage import APPROVER, OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


def shown(page: str, element: str) -> list[list[str]]:
    """The commands of an element, in words."""
    [found] = re.findall(rf'<pre id="{element}">(.*?)</pre>', page, re.S)
    return [shlex.split(one) for one in html.unescape(found).split("&&")]


async def run(words: list[str], key: str = OPERATOR) -> tuple[int, str]:
    assert words[0] == "bulkhead"
    environment = {"COLUMNS": "300", "BULKHEAD_DATA": "/nowhere", "BULKHEAD_API_KEY": key}
    answer = await asyncio.to_thread(CliRunner().invoke, app, words[1:], env=environment)
    return answer.exit_code, answer.output


async def test_the_commands_of_the_page_replay_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga:
        on.model.will(plan({"id": "a"}), a=[says("A holds.")])
        task = (await on.run())["task_id"]
        await on.history(task)  # Nothing more is said about it.
        page = (await olga.get(f"/tasks/{task}/replay")).text
        [one_go] = shown(page, "replay-now")
        code, told = await run(one_go)
        assert code == 0 and "no divergence" in told and "compared byte for byte" in told, told
        for command in shown(page, "replay-file"):
            code, told = await run(command)
            assert code == 0, told
        assert "no divergence" in told and (tmp_path / f"{task}.jsonl.gz").exists()
        code, told = await run(one_go, APPROVER)
        assert code != 0 and "may not export this task" in told, told
        async with browsing(on, APPROVER) as bob:
            page = (await bob.get(f"/tasks/{task}/replay")).text
            assert "Its record holds texts" in page and "--url" not in page and "/export" not in page
