"""A canary of a workflow over a whole mesh: a share of the runs gets the next version, and one that does worse ends."""

import asyncio
from collections import Counter

import pytest

from bulkhead.client import Mesh
from bulkhead.client.errors import Refused
from bulkhead_services.registry.watch import reader
from tests.integration.console.browsing import browsing
from tests.integration.workflows.test_commands import ANN, run
from tests.replay.stage import APPROVER, OPERATOR, Stage, stage

GOOD = "objective: Look\nsteps:\n- {id: look, instruction: It is there., kind: noop}\n"
BAD = GOOD + "- {id: sound, inputs: [look], gate: {of: look, checks: [{test: contains, text: not there}]}}\n"
MAX_RUNS, AT_ONCE = 120, 4


async def approve(on: Stage, text: str, folder) -> None:
    file = folder / "looks.yaml"
    file.write_text(text)
    await run(on, "draft", str(file), "--note", "next")
    await run(on, "submit-for-review", "looks")
    await run(on, "approve", "looks", "--reason", "fine", key=APPROVER)


@pytest.mark.slow
async def test_a_share_of_the_runs_gets_the_next_version_until_it_does_worse(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "POLL_S", 0.02)
    monkeypatch.setattr(reader, "IDLE_POLL_S", 0.02)
    async with stage(tmp_path) as on, Mesh(on.url, ANN) as ann, browsing(on, OPERATOR) as olga_browses:
        await approve(on, GOOD, tmp_path)
        assert "nothing is published" in await run(on, "canary", "start", "looks", "--reason", "try", code=4)
        await run(on, "publish", "looks")
        await approve(on, BAD, tmp_path)
        assert "prompt_editor" in await run(on, "canary", "start", "looks", "--reason", "try", key=ANN, code=4)
        started = await run(on, "canary", "start", "looks", "--percent", "50", "--reason", "try it on half")
        assert "looks.2 is approved, 50 % canary" in started
        assert "looks.2 gets 50 % of the runs that name no version" in (await olga_browses.get("/workflows/looks")).text
        with pytest.raises(Refused, match="only a published version runs"):
            await ann.run_workflow("looks", version=2)

        async def run_once(number: int, version: int = 0) -> dict:
            task = await ann.run_workflow("looks", version=version, idempotency_key=f"r{number}/{version}")
            await task.wait_until_ended()
            return await task.show()

        named = await run_once(0, version=1)
        assert (named["workflow"], named["workflow_release"]) == ("looks.1", ""), "who names a version gets it"
        shown: list[dict] = []
        async with Mesh(on.url, OPERATOR) as olga:
            while (await olga.workflow("looks"))["release"]["number"] < 2 and len(shown) < MAX_RUNS:
                shown += await asyncio.gather(*(run_once(len(shown) + place) for place in range(AT_ONCE)))
            document = await olga.workflow("looks")
        sides = Counter((row["workflow"], row["workflow_release"], row["status"]) for row in shown)
        assert {("looks.1", "looks.1", "succeeded"), ("looks.2", "looks.1.canary", "failed")} <= sides.keys(), sides
        release = document["release"]
        assert (release["person"], release["rolled_back"]["verdict"]) == ("registry", "regressed"), release
        assert "the canary of looks.2 does worse: more tasks" in release["reason"]
        watch = release["rolled_back"]
        assert watch["workflow"] == "looks" and watch["canary"]["tasks"] <= sides["looks.2", "looks.1.canary", "failed"]
        assert "rolled back" in await run(on, "canary", "status", "looks")
        assert "the canary of looks.2 does worse" in (await olga_browses.get("/workflows/looks")).text
        assert {(await run_once(MAX_RUNS + place))["workflow"] for place in range(8)} == {"looks.1"}

        await run(on, "canary", "start", "looks", "--percent", "50", "--reason", "once more")
        assert "looks.2, for 50 % of runs: once more" in await run(on, "canary", "status", "looks")
        assert "looks.2 is approved;" in await run(on, "canary", "stop", "looks", "--reason", "it is worse")
        assert "looks has no canary" in await run(on, "canary", "stop", "looks", "--reason", "again", code=4)
        await run(on, "canary", "start", "looks", "--percent", "1", "--reason", "again")
        assert "looks.2 is published" in await run(on, "publish", "looks")
        assert "looks has no canary" in await run(on, "canary", "status", "looks")
        assert (await run_once(MAX_RUNS + 20))["workflow"] == "looks.2"
