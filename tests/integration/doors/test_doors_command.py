"""`bulkhead doors`: who is connected, with which runs, and what they spend, also while they go on."""

import json

from bulkhead_cli.target import Target
from bulkhead_cli.tasks.doors import show_doors
from tests.integration.doors.whole_mesh import KEY, OPERATOR_KEY, PERSON, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import says


async def test_the_runs_of_agents_outside_and_what_they_spend(tmp_path, capsys):
    async with whole_mesh(tmp_path, says("one")) as here:
        target = Target(here.gateway_url, OPERATOR_KEY)
        await show_doors(target, 20, as_json=False)
        assert "no agent has come yet" in capsys.readouterr().out
        client = here.client()
        raw = await client.chat.completions.with_raw_response.create(
            model="default", messages=[{"role": "user", "content": "[red]hello"}]
        )
        task = raw.headers["x-bulkhead-task"]
        await show_doors(target, 20, as_json=True)
        [run] = json.loads(capsys.readouterr().out)["runs"]
        assert (run["task_id"], run["person"], run["status"]) == (task, PERSON, "running")
        spent = run["spent"]
        assert (spent["model_calls"], spent["input_tokens"], spent["output_tokens"]) == (1, 100, 20)
        await show_doors(target, 20, as_json=False)
        shown = capsys.readouterr().out
        assert task in shown and "[red]hello" in shown and " 120 " in shown
        assert f"connected: {PERSON} 1 open run" in shown
        await show_doors(Target(here.gateway_url, KEY), 20, as_json=False)
        shown = capsys.readouterr().out
        assert task in shown and "shown to operators" in shown
