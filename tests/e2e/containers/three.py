"""A mesh on three brokers and a Redis with a replica: what tests do to it, and how its money is looked at.

In: a stack of docker-compose.yml and docker-compose.cluster.yml, a counter. Out: `Three`, a Field that can lose things.
"""

import asyncio
import json
import time
from typing import Any

import httpx

from bulkhead_infra.docker.stack import Stack, run_docker
from bulkhead_infra.render.cluster import BROKERS
from tests.e2e.containers.field import Count, Field
from tests.e2e.containers.test_operating import examined
from tests.e2e.fixtures.gate import GatedCounter
from tests.eventually import until

WITHIN_S = 150.0
LOOK = """
import json, urllib.request
with urllib.request.urlopen("http://127.0.0.1:8222/jsz?acc=MESH&streams=true", timeout=5) as answer:
    details = json.load(answer)["account_details"]
print(json.dumps({one["name"]: one["cluster"].get("leader", "") for one in details[0]["stream_detail"]}))
"""


class Three(Field):
    """used: what each task that was ever handed in says that it used."""

    def __init__(self, stack: Stack, counter: GatedCounter) -> None:
        super().__init__(stack, counter)
        self.used: dict[str, dict[str, int]] = {}

    def leaders(self) -> dict[str, str]:
        """Of each stream, as the first broker that answers has it."""
        for name in BROKERS:
            for container in self.stack.running_containers_of(name):
                said = self.stack.exec_in_container(container, "python3", "-c", LOOK)
                if said.returncode == 0:
                    found: dict[str, str] = json.loads(said.stdout)
                    return found
        return {}

    def lose(self, service: str, volume: str) -> None:
        """kill -9, and its disk is gone."""
        container = self.stack.running_containers_of(service)[0]
        run_docker("kill", container)
        run_docker("rm", container)
        run_docker("volume", "rm", f"{self.stack.project}_{volume}")

    def begin(self, *services: str) -> None:
        """As an operator does, with what there is. Returns when they are healthy: a broker has caught up then."""
        self.stack.run_compose("up", "--detach", "--no-build", "--no-deps", *services)
        for name in services:
            self.stack.wait_until_healthy(name)

    async def adds_up(self, tasks: list[Count]) -> None:
        """Each of these ends rightly; and what was settled for it is what it says that it used, and the calls that were
        made again: their answer was lost with a broker before it was recorded, and was paid."""
        for one in tasks:
            assert one.task is not None
            self.used[one.task.id] = (await one.ends_rightly())["usage"]
        assert all(used["cost_usd_micros"] for used in self.used.values()), self.used
        deadline, wrong = time.monotonic() + WITHIN_S, dict[str, Any](self.used)
        headers = {"Authorization": f"Bearer {self.credentials['operator']}"}
        async with httpx.AsyncClient(base_url=self.stack.url, headers=headers, timeout=30) as http:
            while wrong:
                assert time.monotonic() < deadline, wrong
                answer = await http.get("/v1/spend", params={"by": "task", "since": "1h", "limit": 100})
                if answer.status_code == httpx.codes.OK:
                    found = answer.json()
                    assert not found["rest_rows"]
                    spent = {row["name"]: row["spent"] for row in found["rows"]}
                    assert not spent.keys() - self.used.keys(), spent
                    wrong = {
                        task: (spent.get(task), used)
                        for task, used in self.used.items()
                        if task not in spent or not _told(spent[task], used)
                    }
                await asyncio.sleep(0.2)


def _told(spent: dict[str, int], used: dict[str, int]) -> bool:
    more = spent["cost_usd_micros"] - used["cost_usd_micros"]
    return more > 0 if spent["model_calls"] > used["model_calls"] else more == 0


async def another_ends(tasks: list[Count]) -> None:
    """Load goes on: since now a task went in, and ended."""
    before = len(tasks)
    await until(lambda: len(tasks) > before, timeout_s=WITHIN_S)
    await tasks[before].ends_rightly()


async def well(project: str) -> dict[str, dict[str, Any]]:
    """What doctor finds once it finds no problem: a new leader of each stream is chosen within seconds."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        code, found = await examined(project)
        if code == 0:
            return found
        assert time.monotonic() < deadline, [one for one in found.values() if one["level"] == "problem"]
