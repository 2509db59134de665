"""`bulkhead prompts` over a whole mesh: from a file to a label and back."""

import asyncio
import json

from typer.testing import CliRunner

from bulkhead_cli.main import app
from tests.replay.stage import EDITOR, OPERATOR, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

FILE = """---
owner: support
variables:
- name: tone
  kind: choice
  choices: [plain, formal]
  default: plain
---
Answer in a {{tone}} tone.
"""


async def run(on: Stage, *words: str, code: int = 0, key: str = EDITOR) -> str:
    """Output of a command, beside the mesh that it asks."""
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["prompts", *words, "--url", on.url, "--api-key", key], catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    return result.stdout if not code else result.output


async def test_a_prompt_goes_from_a_file_to_a_label_and_back(tmp_path):
    (tmp_path / "mesh").mkdir()
    file = tmp_path / "worker.step.md"
    file.write_text(FILE)
    async with stage(tmp_path / "mesh") as on:
        assert "1 variables" in await run(on, "check", str(file))
        assert "a version needs a note" in await run(on, "publish", str(file), code=2)
        assert "published worker.step@r1" in await run(on, "publish", str(file), "--note", "our own words")
        assert "-You carry out one step of a plan." in await run(on, "diff", "worker.step", "--from", "0")
        begun = await run(
            on, "promote", "worker.step", "--percent", "10", "--value", "tone=formal", "--reason", "try it"
        )
        assert "canary, 10 % of tasks: worker.step@r1" in begun
        shown = await run(on, "canary", "status")
        assert "the canary of production since release 1: running" in shown and "rolled back:" in shown
        assert json.loads(await run(on, "canary", "status", "--json"))["canary"]["verdict"] == "running"
        assert "canary, 20 %" in await run(on, "canary", "20", "--reason", "it does well")
        assert "production 3" in await run(on, "canary", "promote", "--reason", "it is better")
        assert "production: r1" in await run(on, "list")

        folder = tmp_path / "prompts"
        assert "prompts written" in await run(on, "export", str(folder))
        assert "nothing has changed" in await run(on, "import", str(folder), "--note", "from the repository")
        (folder / "worker.step.md").write_text(FILE.replace("Answer", "Reply"))
        assert "published worker.step@r2" in await run(on, "import", str(folder), "--note", "from the repository")
        assert "Reply in a" in await run(on, "show", "worker.step")

        await run(on, "promote", "worker.step", "--reason", "all of it")
        assert "production 5 (as release 3)" in await run(on, "rollback", "--reason", "it was worse")
        releases = json.loads(await run(on, "releases", "--json"))["releases"]
        assert [(row["number"], row["person"]) for row in releases] == [(number, "pia") for number in (5, 4, 3, 2, 1)]


async def test_a_file_keeps_model_parameters_schema_and_review_date(tmp_path):
    (tmp_path / "mesh").mkdir()
    settings = (
        "review_by: '2027-03-31'\nmodel: default\nparameters:\n  temperature: 0.2\noutput_schema:\n  type: object\n"
    )
    file = tmp_path / "worker.step.md"
    file.write_text(f"---\nowner: support\n{settings}---\nAnswer.\n")
    async with stage(tmp_path / "mesh") as on:
        await run(on, "publish", str(file), "--note", "our own model")
        await run(on, "export", str(tmp_path / "all"))
        assert (tmp_path / "all" / file.name).read_text() == file.read_text()
        assert "nothing has changed" in await run(on, "import", str(tmp_path / "all"), "--note", "again")
        assert "+model: default" in await run(on, "diff", "worker.step", "--from", "0")


async def test_a_version_is_tried_on_tasks_that_have_ended(tmp_path):
    (tmp_path / "mesh").mkdir()
    file = tmp_path / "worker.step.md"
    file.write_text("---\nowner: support\n---\nAnswer in rhymes.\n")
    async with stage(tmp_path / "mesh") as on:
        on.model.will(
            plan({"id": "a", "tools": ["calculate"]}), a=[use(call("calculate", expression="1 + 1")), says("It is 2.")]
        )
        old = (await on.run("Add it up."))["task_id"]
        await run(on, "publish", str(file), "--note", "in rhymes")
        on.model.will(plan({"id": "a"}), a=[says("It is 2, and so are you.")])
        shown = await run(on, "try", "worker.step@r1", key=OPERATOR)
        assert f"earlier  {old}" in shown and "answered: unknown, 360 tokens" in shown and "and so are you." in shown
        assert [body["messages"][0]["content"] for role, _, body in on.model.asked if role == "work"] == [
            "Answer in rhymes.\n"
        ]
        offered = {tool["function"]["name"] for tool in json.loads(json.dumps(on.model.asked[0][2])).get("tools", ())}
        assert not offered & {"counter_increment", "counter_increment_unkeyed"}
        on.model.will(plan({"id": "a"}), a=[says("It is 2, and so are you.")])
        tried = json.loads(await run(on, "try", "worker.step", "--task", old, "--json", key=OPERATOR))
        [pair] = tried["pairs"]
        assert pair["new"]["prompt_release"] == tried["release"] and pair["new"]["feature"] == "eval"
        assert "counter_increment" not in pair["new"]["tools"] and "calculate" in pair["new"]["tools"]
        assert "none of the newest versions" in await run(on, "try", "worker.step@r7", code=2, key=OPERATOR)
        assert "production stands for the shipped prompts" in await run(on, "releases")


async def test_a_set_is_compared_with_the_requests_of_a_time(tmp_path, monkeypatch):
    (tmp_path / "mesh").mkdir()
    cases = tmp_path / "cases.jsonl"
    cases.write_text(
        "".join(f'{{"name": "c{n}", "input": "Add it up.", "checks": [{{"contains": "2"}}]}}\n' for n in (1, 2))
    )
    async with stage(tmp_path / "mesh") as on:
        for _ in range(2):
            on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
            await on.run("Add it up.")
        few = await run_eval(on, "check", str(cases), "--against", "1h", code=2)
        assert "2 cases and 2 requests are too few to compare" in few
        monkeypatch.setattr("bulkhead_cli.evaluation.sets.MIN_TEXTS", 2)
        alike = json.loads(await run_eval(on, "check", str(cases), "--against", "1h", "--json"))
        assert [(row["measure"], row["drifted"]) for row in alike["distances"]] == [
            ("topics", False),
            ("lengths", False),
            ("languages", False),
        ]


async def run_eval(on: Stage, *words: str, code: int = 0) -> str:
    """As `run`, of `bulkhead eval`."""
    arguments = ["eval", *words, "--url", on.url, "--api-key", OPERATOR]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if not code else result.output
