"""Gates with a judge over a whole mesh: what it fails is made again, goes on, fails the run, or waits for a person."""

from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh
from tests.eventually import until
from tests.integration.memory_mesh.test_tool_policies import policies
from tests.integration.workflows.test_canary import approve
from tests.integration.workflows.test_commands import ANN, run
from tests.replay.stage import APPROVER, Stage, stage
from tests.unit.services.model_gateway.scripted_provider import says

PASS, FAIL = '{"verdict": "pass", "reasons": ["it names the fare"]}', '{"verdict": "fail", "reasons": ["no fare"]}'
FILE = """objective: Look
parameters: [{{name: topic}}]
steps:
- {{id: look, instruction: Look it up., acceptance: found}}
- id: sound
  inputs: [look]
  gate: {{of: look, on_fail: {on_fail}, judge: {{question: "Does it name {{{{topic}}}}?", uncertified: {uncertified}}}}}
"""


async def publish(on: Stage, folder: Path, on_fail: str, uncertified: str = "advise") -> None:
    await approve(on, FILE.format(on_fail=on_fail, uncertified=uncertified), folder)
    await run(on, "publish", "looks")


async def end(on: Stage) -> dict[str, Any]:
    async with Mesh(on.url, ANN) as ann:
        ended: dict[str, Any] = await (await ann.run_workflow("looks", {"topic": "the fare"})).wait_until_ended()
    return ended


@pytest.mark.slow
async def test_a_judge_has_a_step_made_again_and_what_it_fails_is_marked_or_fails_the_run(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await publish(on, tmp_path, "retry")
        on.model.will(
            **{"look": [says("It is there."), says("It is the day fare.")], "sound-judge": [says(FAIL), says(PASS)]}
        )
        ended = await end(on)
        assert (ended["status"], ended["answer"], ended["standing"]) == ("succeeded", "It is the day fare.", "ok"), (
            ended
        )
        assert [(row["step_id"], row["attempts"]) for row in ended["steps"]] == [
            ("look", 2),
            ("sound-judge", 2),
            ("sound", 2),
        ]
        assert ended["usage"]["model_calls"] == 6, "two answers with their checks, and two judgements, all paid"

        on.model.will(**{"look": [says("It is there.")] * 2, "sound-judge": [says(FAIL), says("Well, no.")]})
        ended = await end(on)
        assert (ended["status"], ended["answer"], ended["standing"]) == ("succeeded", "It is there.", "degraded")
        assert "which is advice: the judge gave no verdict" in ended["result"]["standing_reason"]

        await publish(on, tmp_path, "fail", "allow")
        on.model.will(**{"look": [says("It is there.")], "sound-judge": [says(FAIL)]})
        ended = await end(on)
        assert ended["status"] == "failed" and "the judge: no fare" in ended["failure"]["message"]


@pytest.mark.slow
async def test_a_judge_sends_to_a_person_whose_word_counts(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, rule=None, executor=policies(tmp_path)) as on,
        Mesh(on.url, ANN) as ann,
        Mesh(on.url, APPROVER) as bob,
    ):
        await publish(on, tmp_path, "person")
        on.model.will(**{"look": [says("It is there.")], "sound-judge": [says(FAIL)]})
        task = await ann.run_workflow("looks", {"topic": "the fare"})

        async def find_asked() -> Any:
            return next(iter((await bob.approvals()).approvals), None)

        asked = await until(find_asked, "a person is asked")
        assert "does not pass: the judge: no fare" in asked.request.preview
        await bob.grant(asked, "fine as it is")
        ended = await task.wait_until_ended()
        assert (ended["status"], ended["answer"]) == ("succeeded", "It is there."), ended["failure"]
