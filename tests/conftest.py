"""Skips are told: where it is asked for, a skip that allowed_skips.txt does not name for this machine fails the run.

In: reports of the run. Out: its exit status, and a list of what was skipped without leave.
"""

import fnmatch
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.txt")
STRICT = ("CI", "BULKHEAD_STRICT_SKIPS")
ENVIRONMENTS: dict[str, Callable[[], bool]] = {
    "any": lambda: True,
    "no-node": lambda: not (shutil.which("node") and shutil.which("npm")),
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


def pytest_configure(config: pytest.Config) -> None:
    if any(os.environ.get(name, "").lower() in ("1", "true") for name in STRICT):
        config.pluginmanager.register(Skips(read_list()), "allowed-skips")
