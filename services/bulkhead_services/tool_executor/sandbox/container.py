"""Containers of their own for tools that ask for `container`: Docker, without network, read-only, bounded.

In: an image that holds Python, this code and the tool's pack; bounds. Out: the command that starts the tool's program
there, and the one that ends it. Each call has a new container.
"""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from typing import Any

PROGRAM = "bulkhead_services.tool_executor.tool_process_main"
PROBE_TIMEOUT_S = 60.0
NOBODY = "65534:65534"
PASSED_VARIABLES = ("PATH", "HOME", "XDG_RUNTIME_DIR")
ESCAPE_PROGRAM = """
import json, os, socket
through = []
for what, act in {
    "it wrote to its root": lambda: open("/escape", "w"),
    "it reached a network": lambda: socket.create_connection(("1.1.1.1", 53), 1),
    "it has another network than its own": lambda: os.stat("/sys/class/net/eth0"),
    "it is root": lambda: os.setuid(0),
    "it reached Docker": lambda: os.stat("/var/run/docker.sock"),
}.items():
    try:
        act()
        through.append(what)
    except OSError:
        pass
import bulkhead_services.tool_executor.tool_process_main
print(json.dumps(through))
"""


def start_command(image: str, name: str, plan: dict[str, Any]) -> list[str]:
    """The start of a tool's program: it reads and writes frames on its standard input and output."""
    return [*_run_command(image, name, plan), "-P", "-m", PROGRAM, "-", "0"]


def client_environment() -> dict[str, str]:
    """Environment that Docker's client needs; none of it reaches the container."""
    return {name: value for name, value in os.environ.items() if name in PASSED_VARIABLES or name.startswith("DOCKER_")}


def end_container(name: str) -> None:
    """End a container, and wait for nothing."""
    with suppress(OSError):
        subprocess.Popen(  # noqa: S603 - our own command
            [_docker_path(), "kill", name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=client_environment(),
        )


def find_problem(image: str, plan: dict[str, Any]) -> str:
    """Why no container can be had; "" when one can: a child of the image ran against its walls."""
    if not image:
        return "no image is configured (BULKHEAD_TOOL_CONTAINER_IMAGE)"
    if not shutil.which("docker"):
        return "Docker's command line (docker) is not installed where tool_executor runs"
    name = f"bulkhead-tool-probe-{os.getpid()}"
    try:
        tried = subprocess.run(  # noqa: S603 - our own command
            [*_run_command(image, name, plan), "-P", "-c", ESCAPE_PROGRAM],
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            env=client_environment(),
        )
        through = json.loads(tried.stdout)
    except subprocess.TimeoutExpired:
        end_container(name)
        return f"a container of {image} did not end within {PROBE_TIMEOUT_S:.0f} s"
    except (OSError, ValueError):
        last = tried.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        return f"a container of {image} did not run: {last[0]}"[:500]
    return f"walls of {image} do not hold: {', '.join(through)}" if through else ""


def _run_command(image: str, name: str, plan: dict[str, Any]) -> list[str]:
    uid = NOBODY.partition(":")[0]
    network = "bridge" if plan["network"] else "none"
    memory, disk = plan["memory_bytes"], plan["disk_bytes"]
    walls = f"--rm -i --network {network} --read-only --cap-drop ALL --security-opt no-new-privileges --user {NOBODY}"
    walls += f" --memory {memory} --memory-swap {memory} --pids-limit {plan['processes']} --cpus 1"
    tmpfs = f"/tmp:rw,nosuid,nodev,size={disk},uid={uid},gid={uid},mode=700"  # noqa: S108 - the container's own
    walls += f" --ulimit nofile={plan['files']} --ulimit core=0 --tmpfs {tmpfs}"
    walls += " --workdir /tmp --env HOME=/tmp --env TMPDIR=/tmp --label bulkhead.tool --entrypoint python3"
    return [_docker_path(), "run", "--name", name, *walls.split(), image]


def _docker_path() -> str:
    return shutil.which("docker") or "docker"
