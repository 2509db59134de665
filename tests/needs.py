"""What some tests need of the machine beyond Python, and how to get it.

In: a name, by `@pytest.mark.needs("chromium")` or by `need("helm")` in a fixture. Out: a skip whose reason begins
with `needs NAME`; tests/conftest.py counts these in the last line of a run. Any other skip fails a strict run.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.util import find_spec

import pytest

PREFIX = "needs "


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _installed(*programs: str) -> bool:
    return all(map(shutil.which, programs))


def can_mount_images() -> bool:
    """Whether this user may mount a file as a disk (root, loop devices, mkfs.ext4): tried."""
    with tempfile.TemporaryDirectory() as folder:
        image, point = f"{folder}/image", f"{folder}/point"
        os.mkdir(point)
        made = _succeeds("truncate", "-s", "8M", image) and _succeeds("mkfs.ext4", "-q", image)
        return made and _succeeds("mount", "-o", "loop", image, point) and _succeeds("umount", point)


def can_cut_networks() -> bool:
    """Whether this user may make a network of his own and drop packets in it by direction (root, iptables): tried."""
    commands = (
        "ip link set lo up",
        "iptables -t nat -A OUTPUT -d 127.0.2.1 -p tcp -j DNAT --to-destination 127.0.0.1",
        "iptables -A OUTPUT -p tcp -m conntrack --ctorigdst 127.0.2.1 --ctdir REPLY -j DROP",
    )
    return _succeeds("unshare", "--net", "sh", "-c", " && ".join(commands))


def can_confine() -> bool:
    """Whether a tool's process can be walled off from its executor here: tried, and again where it was not, as a fork
    bomb of a test beside this one may have kept the probe from its tries. Without user namespaces root's tools run as
    another user, who cannot read the packs in pytest's private folder."""
    from bulkhead_services.tool_executor.sandbox.probe import Sandbox
    from bulkhead_services.tool_executor.settings import Settings

    if os.getuid() == 0 and not _succeeds("unshare", "--user", "true"):
        return False
    for _ in range(3):
        Sandbox.forget_findings()
        if not Sandbox(Settings()).find_isolation().open_walls:
            return True
    return False


def can_run_containers() -> bool:
    """Whether this user may build images and run containers."""
    try:
        from bulkhead_infra.docker import images, stack
    except ImportError:
        return False
    try:
        if images.unavailable_reason():
            return False
        stack.compose_command()
    except stack.StackError:
        return False
    return True


def can_hang_html_parser() -> bool:
    """Whether unclosed comments keep this Python's parser busy, as they did before its releases of 2025: half a second
    for these, where a mended one takes less than a thousandth."""
    began, parser = time.process_time(), HTMLParser()
    parser.feed("<!--" * 8_000)
    parser.close()
    return time.process_time() - began > 0.05


@dataclass(frozen=True)
class Need:
    """is_met: whether this machine has it. source: where to get it, for the last line of a run."""

    is_met: Callable[[], bool]
    source: str


NEEDS: dict[str, Need] = {
    "chromium": Need(lambda: _installed("chromium") or _installed("chromium-browser"), "apt-get install chromium"),
    "docker": Need(can_run_containers, "a Docker daemon, and apt-get install docker-compose"),
    "hanging-parser": Need(can_hang_html_parser, "a Python whose html.parser can be made to hang"),
    "helm": Need(
        lambda: find_spec("helm_python") is not None, "make setup: helm-python-sdk, which has no wheel for Intel Macs"
    ),
    "inspect-ai": Need(lambda: _installed("inspect"), "a venv with inspect-ai and httpx, whose bin is on PATH"),
    "kubectl": Need(lambda: _installed("kubectl"), "kubectl 1.27 or newer"),
    "linux": Need(lambda: sys.platform == "linux", "Linux"),
    "loop-mounts": Need(can_mount_images, "root, loop devices and apt-get install e2fsprogs"),
    "namespaces": Need(can_cut_networks, "root and apt-get install iproute2 iptables"),
    "node": Need(lambda: _installed("node", "npm"), "Node.js 20 or newer with npm"),
    "packages": Need(
        lambda: _installed("node", "npm") and _succeeds("npm", "ping"),
        "Node.js 20 or newer with npm, and a registry that npm reaches",
    ),
    "prometheus": Need(lambda: _installed("promtool", "prometheus"), "apt-get install prometheus"),
    "public-suites": Need(
        lambda: bool(os.environ.get("BULKHEAD_REFERENCE_MCP")),
        "a folder of public MCP and A2A programs, as .github/workflows/nightly.yml makes it, in BULKHEAD_REFERENCE_MCP",
    ),
    "registry": Need(lambda: _installed("docker-registry", "skopeo"), "apt-get install docker-registry skopeo"),
    "sandbox": Need(can_confine, "a kernel with Landlock or namespaces, and seccomp (`bulkhead doctor`)"),
}
"""By the name that a test gives."""


@functools.cache
def is_met(name: str) -> bool:
    """Whether this machine has it. Tried once."""
    return NEEDS[name].is_met()


def need(name: str) -> None:
    """Skip the test that calls this, unless the machine has it. Raises KeyError: there is no such need."""
    if not is_met(name):
        pytest.skip(f"{PREFIX}{name}: {NEEDS[name].source}")


def needed(reason: str) -> str:
    """The need that a skip's reason names, where this machine does not have it; "" otherwise."""
    name = reason.removeprefix("Skipped: ").partition(":")[0].removeprefix(PREFIX)
    return name if name in NEEDS and not is_met(name) else ""


def explain(left_out: Mapping[str, int]) -> str:
    """One line on what was left out, and how to have it run. left_out: tests by the need that the machine lacks."""
    needs = ", ".join(f"{count} for want of {name} ({NEEDS[name].source})" for name, count in sorted(left_out.items()))
    return f"left out: {needs}; get these and repeat, or run .ci/run on a Debian machine, which gets them"
