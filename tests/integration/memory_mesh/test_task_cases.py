"""`bulkhead eval from-tasks` against the whole mesh in one process."""

import json
from pathlib import Path

import pytest

from bulkhead_cli.evaluation.sets import TaskSelection, write_task_cases
from bulkhead_cli.target import GatewayTarget
from tests.replay.stage import OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


async def test_a_task_that_is_purged_is_left_out_and_the_others_become_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(plan({"id": "a"}), a=[says("The fare is EUR 12.")])
        task = await ann.submit("What is the fare to Graz?")
        await task.result(30)
        selection = TaskSelection("7d", "", "", "", "", ("t-none", task.id), 50)
        await write_task_cases(GatewayTarget(on.url, OPERATOR), selection, (), None, as_json=True)
    shown = capsys.readouterr()
    assert [case["name"] for case in json.loads(shown.out)["cases"]] == [task.id]
    assert "t-none is left out" in shown.err
