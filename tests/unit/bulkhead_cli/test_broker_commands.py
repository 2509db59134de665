"""The commands that read the broker themselves, and the bus client, against a real broker with a real gateway."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.client import Mesh, Refused
from bulkhead_cli.main import app
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.task import TaskEnded
from bulkhead_infra.local.supervisor import LocalMesh
from tests.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
async def local(tmp_path):
    async with LocalMesh(tmp_path, services=("gateway",), scale={"gateway": 2}, durability="process") as mesh:
        yield mesh


async def call(local, *args):
    words = [*args, "--data", str(local.directory)]
    return await asyncio.to_thread(CliRunner().invoke, app, words, env={"COLUMNS": "300"})


async def raw_publisher(local):
    return await JetStreamBus.connect(local.nats_url, service="pub_demo", nkey_seed=local.nkey_seed("pub_demo"))


async def test_doctor_finds_a_running_mesh_well_and_says_what_is_wrong(local):
    answer = await call(local, "doctor", "--json")
    found = {one["what"]: one for one in json.loads(answer.stdout)}
    assert answer.exit_code == 0, answer.stdout
    assert found["durability"]["level"] == "warning" and "process" in found["durability"]["detail"]
    assert found["broker"]["level"] == found["streams"]["level"] == found["gateway"]["level"] == "ok"
    assert found["clock"]["level"] == found["keys"]["level"] == "ok"
    assert found["gateway"]["level"] == "ok" and found["gateway"]["detail"] == "2 of 2 processes, 0 pending, 0 in work"
    (local.directory / "identity" / "operator.nkey").chmod(0o644)
    answer = await call(local, "doctor")
    assert answer.exit_code == 1 and "others can read operator.nkey" in answer.stdout and "chmod" in answer.stdout
    (local.directory / "identity" / "operator.nkey").chmod(0o600)
    await local.kill_broker()
    answer = await call(local, "doctor")
    assert answer.exit_code == 1 and "no answer from" in answer.stdout
    await local.restart_broker()


async def test_dead_letters_are_listed_shown_and_sent_again(local):
    task = "t-dead"
    bus = await raw_publisher(local)
    head = {
        "ce-specversion": "1.0",
        "ce-id": envelope.derive_id("x", "", 1),
        "ce-type": "mesh.task.requested.v2",
        "ce-source": "pub_demo",
        "ce-time": "2026-01-01T00:00:00Z",
        "content-type": "application/json",
    }
    await bus.publish(subjects.mesh_subject("pub_demo", "gateway", "demo", task), b'{"objective": 7}', head, "m1")
    await bus.close()
    async with Mesh(local.url, local.credentials["operator"]) as http, asyncio.timeout(10):
        while (await _status(http, task)) != "rejected":
            await asyncio.sleep(0.02)
    letters = json.loads((await call(local, "dead-letters", "list", "--json")).stdout)["letters"]
    assert [(one["code"], one["body_bytes"]) for one in letters] == [("malformed_body", 16)]
    assert "malformed_body" in (await call(local, "dead-letters")).stdout
    ident = letters[0]["id"]
    shown = (await call(local, "dead-letters", "show", ident[:8])).stdout
    assert '{"objective": 7}' in shown and "ce-type: mesh.task.requested.v2" in shown
    redriven = await call(local, "dead-letters", "redrive", ident[:8], "--json")
    assert redriven.exit_code == 0, redriven.output
    assert json.loads(redriven.stdout)["stream"] == "PUBLISHED_DEMO"
    assert (await call(local, "dead-letters", "show", "ffffffff")).exit_code == 2
    async with asyncio.timeout(10):  # It is as malformed as before: it comes back, as another letter.
        while not (left := json.loads((await call(local, "dead-letters", "list", "--json")).stdout)["letters"]):
            await asyncio.sleep(0.02)
    assert [one["id"] for one in left] != [ident] and len(left) == 1, "what was sent again is not listed any more"
    again = await call(local, "dead-letters", "redrive", ident[:8])
    assert again.exit_code == 4 and "was redriven by" in again.stderr and "--again" in again.stderr
    assert (await call(local, "dead-letters", "dismiss", left[0]["id"][:8])).exit_code == 2, "not without a reason"
    assert (await call(local, "dead-letters", "dismiss", left[0]["id"][:8], "--reason", " ")).exit_code == 2
    why = "a test sent it, für immer"
    dismissed = await call(local, "dead-letters", "dismiss", left[0]["id"][:8], "--reason", why, "--json")
    assert json.loads(dismissed.stdout)["marks"][-1]["reason"] == why
    assert (await call(local, "dead-letters")).stdout == "no dead letters\n"
    shown = (await call(local, "dead-letters", "show", left[0]["id"][:8])).stdout
    assert "standing: dismissed" in shown and f": {why}" in shown
    kept = json.loads((await call(local, "dead-letters", "--all", "--json")).stdout)["letters"]
    assert [one["marks"][-1]["what"] for one in kept] == ["redriven", "dismissed"]
    found = json.loads((await call(local, "doctor", "--json")).stdout)
    assert not [one for one in found if one["what"] == "dead letters"]


async def _status(http, task):
    try:
        return (await http.task(task).show())["status"]
    except Refused:
        return ""


async def test_a_halt_of_a_task_that_is_over_is_told(local):
    async with Mesh(local.url, local.credentials["operator"]) as http:
        task = (await http.submit("Be over")).id
    words, over = (
        ("halt", "--task", task, "--tenant", "demo", "--reason", "late"),
        "the task has ended, so this halt has no effect",
    )
    assert over not in (first := await call(local, *words)).stdout and first.exit_code == 0, first.output
    planner = await JetStreamBus.connect(local.nats_url, service="planner", nkey_seed=local.nkey_seed("planner"))
    await planner.publish(
        subjects.mesh_subject("planner", "gateway", "demo", task),
        TaskEnded(status="cancelled").encode(),
        {"ce-type": TaskEnded.ce_type()},
        "the-end",
    )
    await planner.close()
    async with asyncio.timeout(10):  # The journal lags by a moment.
        while over not in (await call(local, *words)).stdout:
            await asyncio.sleep(0.05)


def test_up_says_what_stops_it(tmp_path):
    environ = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "bulkhead_cli.main", "up", "--data", str(tmp_path)]
    for more, code, said in (
        (["--scale", "worker"], 2, "SERVICE=N"),
        (["--scale", "wroker=2"], 2, "did you mean worker?"),
        (["--scale", "worker=0"], 2, "without a worker"),
        (["--shards", "worker=33"], 2, "at most 32"),
        (["--shards", "nobody=2"], 2, "no service is called"),
        (["--durability", "hope"], 2, "power or process"),
    ):
        found = subprocess.run([*command, *more], capture_output=True, text=True, env=environ, cwd=ROOT, timeout=60)
        assert found.returncode == code and said in found.stderr, found.stderr
        assert "Traceback" not in found.stderr


def test_up_takes_the_tenants_file_that_it_is_given(tmp_path):
    # By its option and by its variable, which gateway and signer read: a ceiling that is not heeded costs money.
    tenants, command = tmp_path / "ours.yaml", [sys.executable, "-m", "bulkhead_cli.main", "up", "--port", "0"]
    tenants.write_text("tenants:\n  ours: {tools: [], task: {cost_usd_micros: much}}\n")
    absent = tmp_path / "absent.yaml"
    for more, environ, file, said in (
        (["--tenants", str(tenants)], {}, tenants, "tenants.ours"),
        ([], {"BULKHEAD_TENANTS_FILE": str(absent)}, absent, "No such file or directory; check its path"),
    ):
        found = subprocess.run(
            [*command, "--data", str(tmp_path / "mesh"), *more],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "300", **environ},
            cwd=ROOT,
            timeout=60,
        )
        assert found.returncode == 2 and str(file) in found.stderr and said in found.stderr, found.stderr
        assert "Traceback" not in found.stderr


async def test_up_in_a_directory_that_is_taken(local):
    command = [sys.executable, "-m", "bulkhead_cli.main", "up", "--data", str(local.directory), "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1 and b"belongs to a mesh that is running" in said and b"Traceback" not in said
