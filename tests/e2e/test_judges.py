"""Judges over a real mesh: a panel is calibrated, killed, resumed, and fails a case while it is certified."""

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

from bulkhead_infra.local.supervisor import LocalMesh
from tests.answer_set.provider import MODEL, ScriptedProvider
from tests.e2e.fixtures.world import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

UMPIRE = "umpire-1"
TERMS = "When a train is 60 minutes late, 40 EUR are refunded. Lost luggage is reported at the desk.\n"
LATE, LOST = "What is refunded when a train is 60 minutes late?", "Where is lost luggage reported?"
RIGHT, WRONG = "40 EUR are refunded.", "90 EUR are refunded."
LABELLED = 40


class Umpire(ScriptedProvider):
    """Votes by whether the documents hold the answer; answers one question right, and the other one wrong."""

    votes = 0

    def _say(self, body: dict[str, Any]) -> tuple[str | None, str]:
        text = "\n".join(str(message.get("content") or "") for message in body["messages"])
        if body["model"] != UMPIRE:
            return (RIGHT if LATE in text else "At the moon."), ""
        self.votes += 1
        material = json.JSONDecoder().raw_decode(text, text.index('{"question"'))[0]
        if "first" in material:
            return json.dumps({"better": "first", "reason": "it stands there"}), ""
        passed = material["answer"].rstrip(".") in material["documents"][0]["text"]
        return json.dumps({"pass": passed, "reason": "the terms say so" if passed else "the terms say otherwise"}), ""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def umpire() -> AsyncIterator[Umpire]:
    async with Umpire(()) as provider:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(umpire: Umpire, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    routes = {"BULKHEAD_ROUTES": json.dumps({"vote": {"model": UMPIRE}})}
    free = {"BULKHEAD_FREE_MODELS": json.dumps([MODEL, UMPIRE])}
    environ = {**os.environ, **umpire.settings, **routes, **free}
    async with LocalMesh(tmp_path_factory.mktemp("judges"), offline_model=False, environ=environ) as mesh:
        yield mesh


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set with its judge and labelled answers."""
    (tmp_path / "terms.md").write_text(TERMS)
    (tmp_path / "judges.yaml").write_text("judges: [{name: panel, jury: [{route: vote}]}]\n")
    rows = [
        {"case": f"{label}{number}", "question": LATE, "documents": ["terms.md"], "answer": answer, "model": "p/gpt-5"}
        | {"labels": {"ann": label, "bob": label}}
        for label, answer in (("good", RIGHT), ("bad", WRONG))
        for number in range(LABELLED // 2)
    ]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check = {"documents": ["terms.md"], "checks": [{"judge": "panel"}]}
    cases = [{"name": "late", "input": LATE} | check, {"name": "lost", "input": LOST} | check]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    return tmp_path


def command_line(mesh: LocalMesh, *words: str) -> list[str]:
    return [sys.executable, "-m", "bulkhead_cli.main", "eval", *words, "--data", str(mesh.directory)]


async def evaluate(mesh: LocalMesh, *words: str, code: int = 0) -> Any:
    process = await asyncio.create_subprocess_exec(
        *command_line(mesh, *words, "--json"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == code, (output, errors)
    return json.loads(output or errors)


async def test_a_panel_that_is_killed_in_mid_calibration_votes_once_on_each_answer_and_then_may_fail_cases(
    mesh: LocalMesh, umpire: Umpire, folder: Path
) -> None:
    calibrate = ("calibrate", str(folder / "labelled.jsonl"), "--judge", "panel")
    calibrate += ("--out", str(folder / "panel.certificate.json"), "--pairs", "9")
    quiet = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    killed = await asyncio.create_subprocess_exec(*command_line(mesh, *calibrate), **quiet)
    evals = mesh.directory / "evals"

    async def is_in_the_middle() -> bool:
        return sum(rows.read_text().count('"kind":"ended"') for rows in evals.glob("calibrate-*/rows.jsonl")) >= 4

    await until(is_in_the_middle, "a calibration in the middle")
    killed.send_signal(signal.SIGKILL)
    assert await killed.wait() == -signal.SIGKILL
    (begun,) = evals.glob("calibrate-*")
    certificate = await evaluate(mesh, *calibrate, "--resume", str(begun))
    assert certificate["position"] == {"pairs": 1, "right": 0, "wrong": 0, "first": 1, "second": 0}
    assert (await evaluate(mesh, *calibrate, "--resume", str(begun)))["position"] == certificate["position"]
    votes = LABELLED + 2
    assert umpire.votes == votes and certificate["is_certified"] and certificate["models"] == [f"openai/{UMPIRE}"]
    assert certificate["rates"]["true_positive"]["count"] == LABELLED // 2
    assert json.loads((folder / "panel.certificate.json").read_text())["judge_sha256"] == certificate["judge_sha256"]

    run, cases = folder / "run", str(folder / "cases.jsonl")
    report = await evaluate(mesh, "run", cases, "--out", str(run), "--no-check", "--min-pass", "0.9", code=1)
    passed = {case["name"]: case["passed"] for case in report["cases"]}
    assert passed == {"late": 1, "lost": 0} and umpire.votes == votes + 2
    (panel,) = report["judges"]
    assert panel["passed"]["value"] == 0.5 and panel["corrected"]["value"] == 0.5 and not panel["advice"]
    lost = next(case for case in report["cases"] if case["name"] == "lost")["runs"][0]
    assert lost["failed"] == ["judge: panel (vote: the terms say otherwise)"]
    suite = ET.parse(run / "junit.xml").getroot()[0]
    assert suite.get("failures") == "1" and "fails it: the terms say otherwise" in ET.tostring(suite, "unicode")

    # Without its certificate the same votes are advice, and none is paid again.
    (folder / "panel.certificate.json").unlink()
    advised = await evaluate(mesh, "run", cases, "--resume", str(run))
    assert all(case["passed"] == 1 for case in advised["cases"]) and umpire.votes == votes + 2
    assert "no certificate" in advised["judges"][0]["advice"] and advised["judges"][0]["corrected"] is None
    assert "judge panel fails it, advice: it has no certificate" in (run / "report.html").read_text()
