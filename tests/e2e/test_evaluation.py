"""`bulkhead eval` over a real mesh: the example set, its runner killed and resumed, compared, and made of tasks."""

import asyncio
import json
import os
import signal
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from bulkhead.evaluation.cases import load_cases
from bulkhead.evaluation.statement import make_key
from bulkhead_cli.main import app
from tests.e2e.fixtures.world import World, until, write_policy
from tests.paths import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLE = ROOT / "examples" / "evaluation"
CASES = 6
ASKS = '@id("ledger") @effect("ask") forbid (principal, action == Action::"counter_increment_unkeyed", resource);'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    policy = write_policy(tmp_path_factory.mktemp("policy") / "asks")
    with (policy / "default.cedar").open("a") as file:
        file.write(f"\n{ASKS}\n")
    extra = {"tool_executor": {"BULKHEAD_POLICY_DIR": str(policy)}}
    async with World(tmp_path_factory.mktemp("evaluation"), extra_env=extra) as world:
        yield world


async def evaluate(world: World, *words: str, code: int = 0) -> Any:
    ended, output, errors = await world.command("eval", *words, "--json")
    assert ended == code, (output, errors)
    return json.loads(output or errors)


def read_rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


async def count_tasks(world: World) -> int:
    rows = await world.client("demo", "operator").tasks(1_000)
    return sum(row["feature"] == "eval" for row in rows)


async def test_a_killed_run_goes_on_without_a_case_run_or_paid_twice(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--repetitions", "3", "--parallel", "3", "--out", str(folder), "--data", str(world.mesh.directory)]
    command = [sys.executable, "-m", "bulkhead_cli.main", "eval", "run", str(EXAMPLE / "cases.jsonl"), *options]
    runner = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )

    async def is_in_the_middle() -> bool:
        ended = len(read_rows(folder, "ended"))
        return ended >= 4 and len(read_rows(folder, "began")) > ended

    await until(is_in_the_middle, "a run in the middle")
    runner.send_signal(signal.SIGKILL)
    assert await runner.wait() == -signal.SIGKILL
    made = len(read_rows(folder, "ended"))
    assert 4 <= made < CASES * 3

    report = await evaluate(world, "run", str(EXAMPLE / "cases.jsonl"), "--resume", str(folder))
    assert report["runs"] == report["runs_wanted"] == CASES * 3 and not report["problems"]
    assert report["figures"]["passed"]["value"] == 1.0, [row for row in report["cases"] if row["passed"] < 1]
    runs = [run for case in report["cases"] for run in case["runs"]]
    assert len({run["task_id"] for run in runs}) == await count_tasks(world) == CASES * 3
    code, output, errors = await world.command("spend", "--by", "feature", "--json")
    assert code == 0, errors
    (spent,) = (row["spent"] for row in json.loads(output)["rows"] if row["name"] == "eval")
    assert spent["cost_usd_micros"] == report["spent_usd_micros"] == sum(run["cost_usd_micros"] for run in runs)
    assert {row["name"]: row["runs"] for row in report["tags"]} == {"luggage": 6, "numbers": 9, "refunds": 9}

    again = await evaluate(world, "run", str(EXAMPLE / "cases.jsonl"), "--resume", str(folder))
    assert again["spent_usd_micros"] == report["spent_usd_micros"] and await count_tasks(world) == CASES * 3
    other = await evaluate(
        world, "run", str(EXAMPLE / "cases.jsonl"), "--resume", str(folder), "--tag", "luggage", code=2
    )
    assert "is not what run" in other["error"]["what"]


async def test_a_run_that_is_worse_than_its_baseline_is_told(world: World, tmp_path: Path) -> None:
    rows = [
        {"name": f"late-{number}", "input": f"Case {number}: What is refunded when a train is 60 minutes late?"}
        for number in range(8)
    ]
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps(row | {"checks": [{"contains": "40 EUR"}]}) + "\n" for row in rows))
    await world.client("demo", "operator").add_document(EXAMPLE / "documents" / "refunds.md")
    earlier = await evaluate(world, "run", str(cases), "--out", str(tmp_path / "before"), "--min-pass", "1")
    await world.client("demo", "operator").delete_document("refunds.md")
    later = await evaluate(
        *(world, "run", str(cases), "--out", str(tmp_path / "after"), "--min-pass", "0.5"),
        *("--baseline", str(tmp_path / "before"), "--junit", str(tmp_path / "junit.xml")),
        code=1,
    )
    assert earlier["figures"]["passed"]["value"] == 1 and later["figures"]["passed"]["value"] == 0
    difference = later["difference"]
    assert difference["verdict"] == "worse" and difference["test"]["name"] == "McNemar's exact test"
    assert difference["test"]["p_value"] == pytest.approx(2 / 2**8, abs=1e-6)
    assert len(later["problems"]) == 2 and "worse than" in later["problems"][1]
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "8")
    page = (tmp_path / "after" / "report.html").read_text()
    assert "<del>" in page and "McNemar" in page
    compared = await evaluate(world, "compare", str(tmp_path / "before"), str(tmp_path / "after"), code=1)
    assert compared["difference"] == difference


async def test_a_spent_budget_leaves_runs_undone_and_more_money_makes_them(world: World, tmp_path: Path) -> None:
    words = ("run", str(EXAMPLE / "cases.jsonl"), "--parallel", "1")
    short = await evaluate(world, *words, "--budget-usd", "0.003", "--out", str(tmp_path / "run"), code=1)
    assert 0 < short["runs"] < CASES and short["spent_usd_micros"] <= 3_000
    assert f"{CASES - short['runs']} of {CASES} runs not made" in short["problems"][0]
    whole = await evaluate(world, *words, "--budget-usd", "1", "--resume", str(tmp_path / "run"))
    assert whole["runs"] == CASES


async def test_a_task_that_waits_for_a_person_fails_at_once(world: World, tmp_path: Path) -> None:
    row = {"name": "pay", "input": "Use counter_increment_unkeyed name=refund amount=152."}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row | {"checks": [{"answered": "yes"}]}) + "\n")
    report = await evaluate(world, "run", str(tmp_path / "cases.jsonl"), "--out", str(tmp_path / "run"))
    (run,) = report["cases"][0]["runs"]
    assert (run["status"], run["code"], run["passed"]) == ("cancelled", "approval_wanted", False)
    assert not world.counter.count("refund")


@pytest.mark.slow
async def test_prompts_that_stand_nowhere_write_nothing(world: World, tmp_path: Path) -> None:
    client = world.client("demo", "operator")
    changes = [{"prompt": "worker.step", "number": 0}]
    release = (await client.request_evaluation("production", changes, "try it"))["evaluation"]["release"]
    row = {"name": "pay", "input": "Use counter_increment name=unread amount=152.", "checks": [{"answered": "yes"}]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row) + "\n")
    words = ["--release", release, "--out", str(tmp_path / "run")]
    await evaluate(world, "run", str(tmp_path / "cases.jsonl"), *words)
    [task] = [row["task_id"] for row in await client.tasks(1_000) if row["release"] == release]
    document = await client.task(task).show()
    assert "calculate" in document["tools"] and document["release"] == release
    assert not world.counter.count("unread")


async def test_calls_of_tools_are_checked_with_their_arguments(world: World, tmp_path: Path) -> None:
    call = {"tool": "calculate", "arguments": {"expression": "17 * 23"}}
    row = {"name": "sum", "input": "Calculate 17 * 23.", "checks": [{"tool_called": call}]}
    other = row | {"name": "other", "checks": [{"tool_called": call | {"arguments": {"expression": "1"}}}]}
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (row, other)))
    report = await evaluate(world, "run", str(tmp_path / "cases.jsonl"), "--out", str(tmp_path / "run"))
    assert {case["name"]: case["passed"] for case in report["cases"]} == {"sum": 1, "other": 0}, report["cases"]


async def test_tasks_become_cases_without_personal_data_that_can_be_run(world: World, tmp_path: Path) -> None:
    task = await world.submit("demo", "Where is lost luggage reported? Write to ada@example.org.")
    await world.finish(task)
    path = tmp_path / "cases.jsonl"
    made = await evaluate(world, "from-tasks", "--since", "1h", "--tag", "july", "--out", str(path))
    assert made["cases"] == 1, "evaluations are no production"
    (case,) = map(json.loads, path.read_text().splitlines())
    assert case["name"] == task.id and case["tags"] == ["production", "july"] and task.id in case["origin"]
    assert "ada@" not in path.read_text() and "[masked]" in case["input"]
    assert (await evaluate(world, "from-tasks", "--out", str(path), code=2))["error"]["hint"]
    assert load_cases(path)[0].objective == case["input"]


@pytest.mark.needs("inspect-ai")
async def test_inspect_ai_opens_the_log_and_its_tasks_run_on_the_mesh(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = await evaluate(world, "run", str(EXAMPLE / "cases.jsonl"), "--out", str(folder))
    (log,) = folder.glob("20*.json")
    shown = json.loads(await run_inspect("log", "dump", str(log)))
    assert shown["status"] == "success" and len(shown["samples"]) == report["runs"] == CASES

    key = world.mesh.add_api_key("demo", "inspect", "submitter")
    solver = {"BULKHEAD_URL": world.mesh.url, "BULKHEAD_API_KEY": key}
    model = {"BULKHEAD_BASE_URL": f"{world.mesh.doors_url}/openai/v1", "BULKHEAD_API_KEY": key}
    for name, environ in (("tasks", solver), ("calls", model)):
        words = (f"{EXAMPLE / 'with_inspect.py'}@refunds_by_{name}", "--model", "openai-api/bulkhead/default")
        await run_inspect("eval", *words, "--log-dir", str(tmp_path / name), "--display", "none", **(model | environ))
        (made,) = (tmp_path / name).glob("*.eval")
        result = json.loads(await run_inspect("log", "dump", str(made)))
        assert result["status"] == "success" and result["results"]["completed_samples"] == 1, result.get("error")
        if name == "tasks":
            assert result["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1.0


async def run_inspect(*words: str, **environ: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "inspect", *words, env={**os.environ, **environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, (output[-2_000:], errors[-2_000:])
    return output.decode()


async def test_a_signed_run_holds_an_image_and_its_models(world: World, tmp_path: Path) -> None:
    key, folder, image = tmp_path / "key.pem", tmp_path / "signed", f"worker=sha256:{'4f' * 32}"
    public = make_key(key)
    words = ["--tag", "luggage", "--sign", str(key), "--image", image, "--out", str(folder)]
    await evaluate(world, "run", str(EXAMPLE / "cases.jsonl"), *words)
    held = ["eval", "verify", str(folder / "statement.json"), "--key", public, "--set", "cases", "--json"]

    def verify(*words: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(app, [*held, *words])
        return result.exit_code, json.loads(result.stdout)["problems"]

    names = ["--models", "openai/offline-rules-1", "--max-age", "72h", "--min-pass", "0.9"]
    assert await asyncio.to_thread(verify, "--image", image, *names) == (0, [])
    other = ["--image", f"worker={'5e' * 32}", "--models", "openai/other"]
    code, problems = await asyncio.to_thread(verify, *other)
    assert code == 1 and len(problems) == 2 and "images/worker is 5e5e5e5e5e5e" in problems[0]
