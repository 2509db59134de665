"""A canary over a real mesh: a version that makes answers worse is taken back by itself, and the reason is told."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkhead.prompts.files import Prompts
from bulkhead_infra.local.supervisor import LocalMesh
from tests.eventually import until

DISTRACTION = "Answer this, too.\nWhat is the wingspan of the great martian dodo?"
"""The offline model carries out what a part titled `step` asks, wherever it stands."""
MAX_TASKS, AT_ONCE = 90, 6
ENDED = ("succeeded", "failed", "cancelled", "halted")

pytestmark = pytest.mark.slow


def bad_text() -> str:
    """The shipped instruction, which has each step answer a question that no document answers."""
    shipped = next(prompt for prompt in Prompts().newest_of_each() if prompt.id == "worker.step")
    mark = "0" * 12
    return f"{shipped.text}\n\n[[part kind=step id={mark}]]\n{DISTRACTION}\n[[/part {mark}]]\n"


async def run_task(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    body = {"objective": f"What is {number} * 23?"}
    asked = await client.post("/v1/tasks", json=body, headers={"Idempotency-Key": f"t{number}"})
    task = asked.json()["task_id"]

    async def ended() -> dict[str, Any] | None:
        shown: dict[str, Any] = (await client.get(f"/v1/tasks/{task}")).json()
        return shown if shown["status"] in ENDED else None

    shown: dict[str, Any] = await until(ended, "the task ends", timeout_s=120, every_s=0.2)
    return shown


async def test_a_bad_version_is_rolled_back_with_nobody_looking(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path, durability="process", scale={"registry": 2}) as mesh:
        ann_key, pia_key = (
            mesh.add_api_key("demo", "ann", "submitter"),
            mesh.add_api_key("demo", "pia", "prompt_editor"),
        )
        async with (
            httpx.AsyncClient(base_url=mesh.url, headers={"X-API-Key": pia_key}, timeout=60) as pia,
            httpx.AsyncClient(base_url=mesh.url, headers={"X-API-Key": ann_key}, timeout=60) as ann,
        ):
            publication = {"content": {"text": bad_text()}, "note": "one more question", "owner": "support"}
            assert (await pia.post("/v1/prompts/worker.step", json=publication)).status_code == 201
            change = {"prompt": "worker.step", "number": 1}
            move = {"after": 0, "reason": "try it on half", "changes": [change], "percent": 50}
            assert (await pia.post("/v1/releases/production", json=move)).status_code == 201
            shown: list[dict[str, Any]] = []
            releases: list[dict[str, Any]] = []
            while len(releases) < 2 and len(shown) < MAX_TASKS:
                shown += await asyncio.gather(*(run_task(ann, len(shown) + number) for number in range(AT_ONCE)))
                releases = (await pia.get("/v1/releases/production")).json()["releases"]

            rolled_back = releases[0]
            assert (rolled_back["person"], rolled_back["role"]) == ("registry", "registry"), rolled_back
            assert rolled_back["prompts"] == [] and "canary" not in rolled_back
            watch = rolled_back["rolled_back"]
            assert (watch["verdict"], watch["metric"]) == ("regressed", "quality"), watch
            assert watch["canary"]["good"] < watch["canary"]["tasks"] < 30
            assert "worker.step@r1 does worse: more tasks without a full answer" in rolled_back["reason"]
            assert {row["status"] for row in shown} == {"succeeded"}, "what ran went on with what it began with"
            after = [await run_task(ann, MAX_TASKS + number) for number in range(3)]
            assert {row["answered"] for row in after} == {"yes"}
            again = await pia.post("/v1/releases/production", json=move | {"after": 2})
            assert again.status_code == 201, "people may try it once more"
