"""The mesh of docker-compose.yml as an object, for the demo and for tests: one compose project, images built before.

In: a project's name, settings per service, which tag. Out: containers that run until `down`; where they are, what they
said, what becomes of them. `with Stack("name") as stack:` removes everything at the end, volumes too. Synchronous.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.docker import images
from bulkhead_infra.docker.image_contents import ROOT, SERVICES

COMMAND_TIMEOUT_S = 120.0
UP_TIMEOUT_S = 240.0
READY_TIMEOUT_S = 120.0
DOWN_TIMEOUT_S = 120.0
STOP_SIGNAL_S = 12
POLL_S = 0.25
PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
RUNNING_STATES = ("running", "paused", "restarting")
PORT_TAKEN = ("port is already allocated", "address already in use")
"""By a container, and by anything else."""


class StackError(Exception):
    """The containers could not be made to do what was asked; says why and what to do."""


class Stack:
    """See the module. extra_env: {service: {NAME: value}}; environ: for compose itself (BULKHEAD_TAG, ...)."""

    def __init__(
        self,
        project: str,
        extra_env: Mapping[str, Mapping[str, str]] | None = None,
        environ: Mapping[str, str] | None = None,
        services: Mapping[str, Mapping[str, object]] | None = None,
        *,
        cluster: bool = False,
    ) -> None:
        """cluster: three brokers, and a Redis that fails over: docker-compose.cluster.yml beside docker-compose.yml.
        services: more of compose's own keys per service, e.g. {"worker": {"networks": [...]}}."""
        self.project = project
        self._compose = compose_command()
        # Chosen here: a port that Docker chooses is another one after a restart.
        self.port, self.doors_port = free_port(), free_port()
        ports = {"BULKHEAD_HTTP_PORT": str(self.port), "BULKHEAD_DOORS_PORT": str(self.doors_port)}
        self._environ = {**ports, **(environ or {})}
        overrides: dict[str, dict[str, object]] = {name: dict(keys) for name, keys in (services or {}).items()}
        for name, variables in (extra_env or {}).items():
            overrides.setdefault(name, {})["environment"] = dict(variables)
        self._folder = tempfile.TemporaryDirectory(prefix="bulkhead-stack-")
        names = ("docker-compose.yml", "docker-compose.cluster.yml") if cluster else ("docker-compose.yml",)
        self._files = [part for name in names for part in ("--file", str(ROOT / name))]
        if overrides:
            override = Path(self._folder.name) / "override.yml"
            override.write_text(yaml.safe_dump({"services": overrides}))
            self._files += ["--file", str(override)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # The whole of it

    def up(self, scale: Mapping[str, int] | None = None) -> None:
        """Start everything, gated by health. Raises StackError with what the failing container said."""
        counts = [f"--scale={name}={count}" for name, count in (scale or {}).items()]
        done = self.run_compose("up", "--detach", "--no-build", *counts, timeout_s=UP_TIMEOUT_S, check=False)
        if done.returncode:
            stderr = done.stderr[-2000:]
            raise StackError(f"compose up failed:\n{stderr}\n{self._render_failures()}{port_hint(stderr)}")
        self.wait_until_ready()

    def down(self) -> None:
        """Remove containers, networks, volumes."""
        self.run_compose(
            "down", "--volumes", "--remove-orphans", "--timeout", "3", timeout_s=DOWN_TIMEOUT_S, check=False
        )
        self._folder.cleanup()

    def leave_running(self) -> None:
        """Let everything stand; this object is not used again."""
        self._folder.cleanup()

    def run_compose(
        self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One compose command in this project. Raises StackError."""
        project = ["--project-name", self.project, *self._files, "--project-directory", str(ROOT), "--profile", "core"]
        command = [*self._compose, *project, *arguments]
        return _run_command(command, {**os.environ, **self._environ}, timeout_s, check, stdin)

    # Its containers

    def running_containers_of(self, service: str) -> list[str]:
        """Ids of a service's running containers, the oldest first."""
        return self._list_containers(
            f"label={SERVICE_LABEL}={service}", *(f"status={status}" for status in RUNNING_STATES)
        )

    @property
    def running_containers(self) -> list[str]:
        return self._list_containers(*(f"status={status}" for status in RUNNING_STATES))

    def inspect_container(self, container: str) -> dict[str, Any]:
        details: dict[str, Any] = json.loads(run_docker("inspect", container).stdout)[0]
        return details

    def scale_service(self, service: str, count: int) -> None:
        """That many replicas; those that go are drained. Nothing else is touched."""
        options = ("--detach", "--no-build", "--no-deps", "--no-recreate", f"--scale={service}={count}")
        self.run_compose("up", *options, service, timeout_s=UP_TIMEOUT_S)
        self.wait_until_ready([service])

    def restart_service(self, service: str) -> None:
        """Drain and start every container of a service again; returns when it is ready."""
        run_docker("restart", "--time", str(STOP_SIGNAL_S), *self._containers_of(service), timeout_s=UP_TIMEOUT_S)
        if service in SERVICES:
            self.wait_until_ready([service])
        else:
            self.wait_until_healthy(service)

    def read_logs(self, service: str) -> str:
        """Logs of all its containers. Docker is asked: see `_list_containers`."""
        outputs = [run_docker("logs", container, check=False) for container in self._containers_of(service)]
        return "".join(output.stdout + output.stderr for output in outputs)

    def exec_in_container(self, container: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container; its exit code is the caller's business."""
        return run_docker("exec", container, *command, check=False)

    def wait_until_ready(self, services: Iterable[str] = tuple(SERVICES)) -> None:
        """Return when every container of these services says that it is ready. Raises StackError with its log."""
        self._wait_until(self.is_ready, "ready", services)

    def wait_until_healthy(self, service: str) -> None:
        """Return when Docker calls every container healthy: broker and Redis have no other probe. Raises StackError."""

        def is_healthy(container: str) -> bool:
            return bool(self.inspect_container(container)["State"].get("Health", {}).get("Status") == "healthy")

        self._wait_until(is_healthy, "healthy", [service])

    def _wait_until(self, holds: Callable[[str], bool], state: str, services: Iterable[str]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = [(name, container) for name in services for container in self._containers_of(name)]
        while waiting := [(name, container) for name, container in waiting if not holds(container)]:
            if time.monotonic() > deadline:
                name, log = waiting[0][0], self.read_logs(waiting[0][0])[-3000:]
                raise StackError(f"{name} was not {state} within {READY_TIMEOUT_S:g} s; it said:\n{log}")
            time.sleep(POLL_S)

    # How to reach it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        keys = f"{self.key_volume('operator')}:/bulkhead/keys/operator"
        done = run_docker(
            "run", "--rm", "--network", "none", "--volume", keys, self.image_name("provisioner"), "credentials"
        )
        api_keys: dict[str, str] = json.loads(done.stdout)
        return api_keys

    def key_volume(self, owner: str) -> str:
        """The volume with somebody's keys."""
        return f"{self.project}_keys_{owner}"

    def network_name(self, name: str) -> str:
        return f"{self.project}_{name}"

    def image_name(self, name: str) -> str:
        """The image that this project uses for a name."""
        return images.tag_of(name, self._environ.get("BULKHEAD_TAG", ""))

    def _containers_of(self, service: str) -> Sequence[str]:
        containers = self._list_containers(f"label={SERVICE_LABEL}={service}")
        if not containers:
            raise StackError(f"{service} has no container; was the stack started?")
        return containers

    def _list_containers(self, *filters: str) -> list[str]:
        """This project's containers, the oldest first. Docker is asked: compose 1.29 takes a second for an answer."""
        mine = (f"label={PROJECT_LABEL}={self.project}", f"label={ONE_OFF_LABEL}=False", *filters)
        listing = run_docker("ps", "--all", "--no-trunc", "--quiet", *(f"--filter={condition}" for condition in mine))
        return listing.stdout.split()[::-1]

    def is_ready(self, container: str) -> bool:
        """Readiness of a service's container, as it says itself."""
        probe = ("python3", "-S", "-P", "-m", "bulkhead.runtime.process.container_probe")
        return self.exec_in_container(container, *probe).returncode == 0

    def _render_failures(self) -> str:
        reports = []
        for container in self._list_containers():
            details = self.inspect_container(container)
            if details["State"]["ExitCode"]:
                last = run_docker("logs", "--tail", "20", container, check=False)
                reports.append(f"{details['Name']}:\n{last.stdout}{last.stderr}")
        return "\n".join(reports)


def run_docker(
    *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """One docker command. Raises StackError, DockerImageError."""
    return _run_command([images.docker_client(), *arguments], dict(os.environ), timeout_s, check)


def compose_command() -> list[str]:
    """The command: `docker compose` where the client has it, else docker-compose. Raises StackError."""
    client = images.docker_client()
    if subprocess.run([client, "compose", "version"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return [client, "compose"]
    if program := shutil.which("docker-compose"):
        return [program]
    raise StackError("docker-compose is not installed: on Debian, apt-get install docker-compose")


def _run_command(
    command: list[str], environ: Mapping[str, str], timeout_s: float, check: bool, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(  # noqa: S603
            command, env=dict(environ), capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{' '.join(command[:1] + command[-3:])} did not end within {timeout_s:g} s") from error
    if check and done.returncode:
        stderr = done.stderr.strip()[-2000:]
        raise StackError(f"{' '.join(command[:1] + command[-4:])} failed: {stderr}{port_hint(stderr)}")
    return done


def port_hint(docker_error: str) -> str:
    """A hint for an error of Docker that has none of its own; "" otherwise."""
    if any(words in docker_error for words in PORT_TAKEN):
        return (
            "\nsomething else listens on the gateway's port or on that of doors: stop it, or choose others "
            "(BULKHEAD_HTTP_PORT=8081, BULKHEAD_DOORS_PORT=8091), and start again; nothing is lost"
        )
    return ""
