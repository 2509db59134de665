"""Whoever runs the mesh in containers has the whole command line: what ran, why, how all stands.

A copy of it, and a mesh made of the copy: restoring.py.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.containers.field import STEPS, Count, Field

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHIN_S = 60.0


async def operate(project: str, *command: str) -> tuple[int, str, str]:
    """As an operator types it: exit code, standard output and error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.containers",
        "--project",
        project,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


async def examined(project: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Doctor's exit code, and what it found by name."""
    code, said, complained = await operate(project, "doctor", "--json")
    assert said, complained
    return code, {one["what"]: one for one in json.loads(said)}


async def test_an_operator_looks_into_the_mesh(field: Field) -> None:
    async with field.client() as client:
        task = await Count(field, client).submit()
        await task.ends_rightly()
    assert task.task is not None
    name, project = task.task.id, field.stack.project
    timeline, replay, why, doctor = await asyncio.gather(
        operate(project, "timeline", name, "--json"),
        operate(project, "replay", name),
        operate(project, "why", name),
        operate(project, "doctor", "--json"),
    )
    messages = json.loads(timeline[1])["messages"]
    assert timeline[0] == 0 and [row["type"] for row in messages].count("mesh.step.finished.v1") == STEPS, timeline
    assert replay[0] == 0, replay
    assert why[0] == 0, why
    findings: list[dict[str, Any]] = json.loads(doctor[1])
    assert not [one for one in findings if one["level"] == "problem"] and doctor[0] == 0, findings
    assert {"permissions", "streams", "redis", "gateway"} <= {one["what"] for one in findings if one["level"] == "ok"}
    # Keys were there only as long as they were used.
    assert not list(Path(tempfile.gettempdir()).glob("bulkhead-operate-*"))
