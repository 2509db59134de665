"""Skips are told: where it is asked for, a skip that allowed_skips.txt does not name for this machine fails the run.

In: reports of the run. Out: its exit status, and a list of what was skipped without leave.
"""

import fnmatch
import functools
import glob
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

LIST = Path(__file__).with_name("allowed_skips.txt")
FAILURES = "BULKHEAD_FAILURES"
STRICT = ("CI", "BULKHEAD_STRICT_SKIPS")
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"

# How long an example takes says how busy the machine is, nothing of the code.
settings.register_profile("any-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-load")


@pytest.fixture(autouse=True, scope="module")
def _own_log_level() -> Iterator[None]:
    """The log level that a file of tests sets (a simulation wants silence) ends with it: the next may read its log."""
    logger = logging.getLogger("bulkhead")
    level = logger.level
    yield
    logger.setLevel(level)


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@functools.cache
def can_mount_images() -> bool:
    """Whether this user may mount a file as a disk (root, loop devices, mkfs.ext4): tried."""
    with tempfile.TemporaryDirectory() as folder:
        image, point = f"{folder}/image", f"{folder}/point"
        os.mkdir(point)
        made = _runs("truncate", "-s", "8M", image) and _runs("mkfs.ext4", "-q", image)
        return made and _runs("mount", "-o", "loop", image, point) and _runs("umount", point)


@functools.cache
def can_cut_networks() -> bool:
    """Whether this user may make a network of his own and drop packets in it by direction (root, iptables): tried."""
    commands = (
        "ip link set lo up",
        "iptables -t nat -A OUTPUT -d 127.0.2.1 -p tcp -j DNAT --to-destination 127.0.0.1",
        "iptables -A OUTPUT -p tcp -m conntrack --ctorigdst 127.0.2.1 --ctdir REPLY -j DROP",
    )
    return _runs("unshare", "--net", "sh", "-c", " && ".join(commands))


@functools.cache
def can_fake_time() -> bool:
    """Whether libfaketime is installed where Debian has it."""
    return bool(glob.glob(FAKETIME))


@functools.cache
def why_no_docker() -> str:
    """What keeps this user from building images and running containers; "" when nothing does."""
    try:
        from bulkhead_infra.docker import images, stack
    except ImportError as error:
        return str(error)
    try:
        why = images.why_not()
        if not why:
            stack.compose()
        return why
    except stack.StackError as error:
        return str(error)


def can_run_a_registry() -> bool:
    """Whether docker-registry is installed, and the programs of others that tests look at it with."""
    names = ("docker-registry", "registry"), ("skopeo",), ("openssl",)
    return all(any(map(shutil.which, either)) for either in names)


@functools.cache
def can_confine() -> bool:
    """Whether a tool's process can be walled off from its executor here: tried, and again where it was not, as a fork
    bomb of a test beside this one may have kept the probe from its tries."""
    from bulkhead_services.tool_executor.sandbox.probe import Sandbox
    from bulkhead_services.tool_executor.settings import Settings

    for _ in range(3):
        Sandbox.forget()
        if not Sandbox(Settings()).found().open_walls:
            return True
    return False


@functools.cache
def why_no_kustomize() -> str:
    """What keeps manifests from being rendered; "" when nothing does. Components need Kustomize 5, in kubectl 1.27."""
    said = (
        subprocess.run(
            ["kubectl", "version", "--client", "--output=json"], capture_output=True, text=True, timeout=30, check=False
        )
        if shutil.which("kubectl")
        else None
    )
    if said is None or said.returncode:
        return "kubectl is not installed"
    found = str(json.loads(said.stdout).get("kustomizeVersion", "v0"))
    return "" if int(found.lstrip("v").split(".")[0]) >= 5 else f"kubectl has Kustomize {found}; it takes 5"


ENVIRONMENTS: dict[str, Callable[[], bool]] = {
    "any": lambda: True,
    "no-node": lambda: not (shutil.which("node") and shutil.which("npm")),
    "no-loop-mounts": lambda: not can_mount_images(),
    "no-namespaces": lambda: not can_cut_networks(),
    "no-faketime": lambda: not can_fake_time(),
    "no-sandbox": lambda: not can_confine(),
    "no-kustomize": lambda: bool(why_no_kustomize()),
    "no-docker": lambda: bool(why_no_docker()),
    "no-chromium": lambda: not (shutil.which("chromium") or shutil.which("chromium-browser")),
    "no-registry": lambda: not can_run_a_registry(),
    "no-reference-mcp": lambda: not os.environ.get("BULKHEAD_REFERENCE_MCP"),
}
"""What a line's first column may say, and whether this machine is such a one."""


@dataclass(frozen=True)
class Allowed:
    """One line of the list."""

    environment: str
    pattern: str
    reason: str

    def covers(self, test_id: str) -> bool:
        """Whether this test may be skipped here. Brackets are those of a parameter."""
        here = ENVIRONMENTS[self.environment]()
        return here and fnmatch.fnmatchcase(test_id, self.pattern.replace("[", "[[]"))


def read_list(path: Path = LIST) -> tuple[Allowed, ...]:
    """The lines. Raises ValueError that names the line that does not fit."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = [one.strip() for one in line.split("|")]
        if len(columns) != 3 or not all(columns) or columns[0] not in ENVIRONMENTS:
            raise ValueError(
                f"{path.name}:{number}: write `environment | test id | reason`; environments: {', '.join(ENVIRONMENTS)}"
            )
        found.append(Allowed(*columns))
    return tuple(found)


@dataclass(eq=False)
class Skips:
    """Gathers what was skipped: tests, and whole files at collection. An expected failure (xfail) hides as much."""

    allowed: tuple[Allowed, ...]
    unexpected: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._take(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._take(report)

    def _take(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not any(one.covers(report.nodeid) for one in self.allowed):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            self.unexpected[report.nodeid] = str(why)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.unexpected:
            return
        terminalreporter.section("skipped without leave", red=True, bold=True)
        for test_id, why in self.unexpected.items():
            terminalreporter.write_line(f"{test_id}: {why}")
        terminalreporter.write_line(f"make them run here, or add a line to tests/{LIST.name} that says why not")


@dataclass(eq=False)
class Failures:
    """Writes down what failed, for whoever started this run (tests/__main__.py)."""

    path: Path
    found: dict[str, None] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.found[report.nodeid] = None

    def pytest_sessionfinish(self) -> None:
        self.path.write_text("\n".join(self.found))


def pytest_configure(config: pytest.Config) -> None:
    # Taken away, so that a run that a test starts does not write into it.
    if path := os.environ.pop(FAILURES, ""):
        config.pluginmanager.register(Failures(Path(path)), "failures")
    if any(os.environ.get(name, "").lower() in ("1", "true") for name in STRICT):
        config.pluginmanager.register(Skips(read_list()), "allowed-skips")
