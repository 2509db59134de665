"""Redis and its sentinels as the chart has them: names last, addresses change with each pod."""

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bulkhead_infra.docker.provisioner import redis_password
from bulkhead_infra.docker.redis_container import WATCHED_PAIR
from bulkhead_infra.docker.stack import run_docker
from bulkhead_infra.kubernetes import key_folder
from tests.contract.containers.pods import Pod, read_pods
from tests.e2e.containers.field import TAG
from tests.unit.infra.kubernetes.rendered import installation

WITHIN_S = 90.0
REDIS_SERVERS, SENTINELS = ("redis-0.redis", "redis-1.redis"), 3
OWNERS, SECRET = ("redis", "sentinel"), "bulkhead-redis"
CONFINED = ("--restart", "on-failure", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")


class Pods:
    """Two servers and three sentinels. A new pod has another address, as that of the one before is kept taken."""

    def __init__(self, pods: list[Pod], folder: Path, password: str, image: str) -> None:
        self._pods, self._folder = {pod.name: pod for pod in pods}, folder
        self._password, self._image, self._network = password, image, f"bulkhead-{TAG}-by-name"
        run_docker("network", "create", self._network)
        for name in self._pods:
            self.begin(name)

    def box(self, name: str) -> str:
        return f"{self._network}-{name}"

    def begin(self, name: str) -> None:
        pod = self._pods[name]
        [container] = pod.containers
        owner = container.user.partition(":")[0]
        options = ["--user", container.user, "--hostname", name, *CONFINED]
        for mount in container.mounts:
            if mount.files:
                source = self._folder / name / Path(mount.path).name
                source.mkdir(parents=True, exist_ok=True)
                for file, content in mount.files.items():
                    (source / file).write_bytes(content)
                    (source / file).chmod(0o444)
                options += ["--volume", f"{source}:{mount.path}:ro"]
            else:
                options += ["--tmpfs", f"{mount.path}:uid={owner},mode=0700"]
        for key, value in container.environment.items():
            options += ["--env", f"{key}={value}"]
        for alias in pod.names:
            options += ["--network-alias", alias]
        options += ["--network", self._network, "--name", self.box(name)]
        run_docker("run", "--detach", *options, self._image, *(container.args or ()))

    def delete(self, name: str) -> None:
        """End a pod in order. `replace` and `return_elsewhere` begin another, with nothing of it but its name."""
        run_docker("stop", self.box(name))
        run_docker("rm", self.box(name))

    def return_elsewhere(self, name: str, before: str) -> None:
        """A pod in the place of one that was deleted; before: its address, which somebody else has now."""
        sleeper = ("--entrypoint", "python3", self._image, "-c", "import time; time.sleep(600)")
        run_docker(
            "run", "--detach", "--network", self._network, "--name", self.box(f"taken-{time.time_ns()}"), *sleeper
        )
        self.begin(name)
        assert self.address(name) != before

    def replace(self, name: str) -> None:
        before = self.address(name)
        self.delete(name)
        self.return_elsewhere(name, before)

    def address(self, name: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return run_docker("inspect", "--format", form, self.box(name)).stdout.strip()

    def ask(self, name: str, port: int, *words: str) -> str:
        command = ("redis-cli", "-a", self._password, "--no-auth-warning", "-p", str(port), *words)
        return run_docker("exec", self.box(name), *command, check=False).stdout

    def masters(self) -> list[tuple[str, str]]:
        """The master's name by each sentinel, and the number of other sentinels that it counts."""
        answers = []
        for number in range(SENTINELS):
            lines = self.ask(f"sentinel-{number}", 26379, "sentinel", "master", WATCHED_PAIR).split("\n")
            row = dict(zip(lines[::2], lines[1::2], strict=False))
            answers.append((row.get("ip", ""), row.get("num-other-sentinels", "")))
        return answers

    def role(self, number: int) -> str:
        text = self.ask(f"redis-{number}", 6379, "info", "replication")
        return " ".join(re.findall(r"^(?:role|master_host|master_link_status):(\S+)", text, re.MULTILINE))

    def agreed(self, led: int) -> bool:
        """Whether this server is the master for each sentinel, for itself and for the other server."""
        name = REDIS_SERVERS[led]
        named = self.masters() == [(name, "2")] * SENTINELS
        return named and (self.role(led), self.role(1 - led)) == ("master", f"slave {name} up")

    def close(self) -> None:
        boxes = run_docker("ps", "--all", "--quiet", "--filter", f"name={self._network}").stdout.split()
        run_docker("rm", "--force", "--volumes", *boxes, check=False, timeout_s=120)
        run_docker("network", "rm", self._network, check=False)


@pytest.fixture
def pods(built: Mapping[str, str], tmp_path: Path) -> Iterator[Pods]:
    rendered = [manifest for manifest in installation("staging") if manifest["metadata"]["name"] in OWNERS]
    key_folder.ensure_key_folder(tmp_path / "keys")
    made = [secret for secret in key_folder.render_secrets(tmp_path / "keys") if secret["metadata"]["name"] == SECRET]
    begun = Pods(read_pods([*rendered, *made]), tmp_path, redis_password(tmp_path / "keys"), built["redis"])
    try:
        yield begun
    finally:
        begun.close()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, inspect.getsource(holds)
        time.sleep(0.5)


def test_each_pod_may_come_back_under_another_address(pods: Pods) -> None:
    _until(lambda: pods.agreed(0) or pods.agreed(1))
    pods.replace("redis-0")
    # Who is back soon enough is the master still; on a slow machine the other one is.
    _until(lambda: pods.agreed(0) or pods.agreed(1))
    led = 0 if pods.agreed(0) else 1
    for number in range(SENTINELS):
        pods.replace(f"sentinel-{number}")
    # A sentinel that came back is no fourth one: the majority would be another.
    _until(lambda: pods.agreed(led))
    before = pods.address(f"redis-{led}")
    pods.delete(f"redis-{led}")
    _until(lambda: pods.masters() == [(REDIS_SERVERS[1 - led], "2")] * SENTINELS and pods.role(1 - led) == "master")
    pods.return_elsewhere(f"redis-{led}", before)
    _until(lambda: pods.agreed(1 - led))
    pods.replace("redis-1")
    pods.replace("redis-0")
    _until(lambda: len(set(pods.masters())) == 1)
    _until(lambda: sorted((pods.role(0).split()[0], pods.role(1).split()[0])) == ["master", "slave"])
