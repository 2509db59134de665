"""Redis and its sentinels as the manifests of staging have them: names last, addresses change with each pod."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from bulkhead_infra.docker.provisioner import redis_password
from bulkhead_infra.docker.redis_container import WATCHED
from bulkhead_infra.docker.stack import run_docker
from bulkhead_infra.kubernetes.infrastructure import REDIS_SERVERS, SENTINELS
from bulkhead_infra.stages.manifests import overlay
from bulkhead_infra.stages.manifests.kubelet import Kubelet
from tests.e2e.containers.field import TAG

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.needs("kubectl")]
WITHIN_S = 90.0
OWNERS, SECRET = ("redis", "sentinel"), "bulkhead-redis"


class Pods:
    """Two servers and three sentinels. A new pod has another address, as that of the one before is kept taken."""

    def __init__(self, kubelet: Kubelet, password: str, image: str) -> None:
        self.kubelet, self._password, self._image = kubelet, password, image
        self.taken: list[str] = []

    def ask(self, name: str, port: int, *words: str) -> str:
        run = self.kubelet.runs.get(name)
        if run is None or run.box is None:
            return ""
        command = ("redis-cli", "-a", self._password, "--no-auth-warning", "-p", str(port), *words)
        return run_docker("exec", run.box.id, *command, check=False).stdout

    def masters(self) -> list[tuple[str, str]]:
        """What each sentinel says: the master's name, and how many other sentinels it counts."""
        found = []
        for number in range(SENTINELS):
            lines = self.ask(f"sentinel-{number}", 26379, "sentinel", "master", WATCHED).split("\n")
            row = dict(zip(lines[::2], lines[1::2], strict=False))
            found.append((row.get("ip", ""), row.get("num-other-sentinels", "")))
        return found

    def role(self, number: int) -> str:
        said = self.ask(f"redis-{number}", 6379, "info", "replication")
        words = ("role:", "master_host:", "master_link_status:")
        return " ".join(line.partition(":")[2] for line in said.split() if line.startswith(words))

    def agreed(self, led: int) -> bool:
        """Whether this server is the master for each sentinel, for itself and for the other server."""
        name = REDIS_SERVERS[led]
        known = self.masters() == [(name, "2")] * SENTINELS
        return known and (self.role(led), self.role(1 - led)) == ("master", f"slave {name} up")

    async def replace(self, name: str) -> None:
        """Another pod of this name, at another address."""
        before = self.kubelet.runs[name].address
        await self.kubelet.delete(name)
        await self.begin(name, before)

    async def begin(self, name: str, before: str) -> None:
        """A pod in the place of one that was deleted."""
        sleep = ("--entrypoint", "python3", self._image, "-c", "import time; time.sleep(600)")
        taken = run_docker("run", "--detach", "--network", self.kubelet.network, *sleep).stdout.strip()
        self.taken.append(taken)
        self.kubelet.start()
        await self.kubelet.ready(WITHIN_S)
        assert self.kubelet.runs[name].address != before


@pytest_asyncio.fixture(loop_scope="session")
async def pods(built: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Pods]:
    rendered = overlay.manifests("staging")
    mine = [one for one in rendered if one["kind"] != "ConfigMap" and one["metadata"]["name"] in OWNERS]
    made = [one for one in overlay.made_secrets("staging", tmp_path / "keys") if one["metadata"]["name"] == SECRET]
    password = redis_password(tmp_path / "keys")
    kubelet = Kubelet([*mine, *made], tmp_path, tag=TAG)
    await kubelet.open()
    found = Pods(kubelet, password, built["redis"])
    try:
        kubelet.start()
        await kubelet.ready(WITHIN_S)
        yield found
    finally:
        run_docker("rm", "--force", *found.taken, check=False)
        await kubelet.close()


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, inspect.getsource(holds)
        await asyncio.sleep(0.5)


async def test_each_pod_may_come_back_under_another_address(pods: Pods) -> None:
    await _until(lambda: pods.agreed(0) or pods.agreed(1))
    await pods.replace("redis-0")
    # Who is back soon enough is the master still; on a slow machine the other one is.
    await _until(lambda: pods.agreed(0) or pods.agreed(1))
    led = 0 if pods.agreed(0) else 1
    for number in range(SENTINELS):
        await pods.replace(f"sentinel-{number}")
    # A sentinel that came back is no fourth one: the majority would be another.
    await _until(lambda: pods.agreed(led))
    before = pods.kubelet.runs[f"redis-{led}"].address
    await pods.kubelet.delete(f"redis-{led}")
    await _until(
        lambda: pods.masters() == [(REDIS_SERVERS[1 - led], "2")] * SENTINELS and pods.role(1 - led) == "master"
    )
    await pods.begin(f"redis-{led}", before)
    await _until(lambda: pods.agreed(1 - led))
    await pods.replace("redis-1")
    await pods.replace("redis-0")
    await _until(lambda: len(set(pods.masters())) == 1)
    await _until(lambda: sorted((pods.role(0).split()[0], pods.role(1).split()[0])) == ["master", "slave"])
