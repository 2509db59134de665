"""What every run of tests has: needs of the machine, and notes on what failed or took long.

A test that needs a program marks it (`@pytest.mark.needs("chromium")`, tests/needs.py). It is left out where the
program is absent, and the last line of the run says so. With CI=true or BULKHEAD_STRICT_SKIPS=1 any other skip fails
the run: it would hide a test.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import needs

NOTES = "BULKHEAD_TEST_NOTES"
STRICT = ("CI", "BULKHEAD_STRICT_SKIPS")
LONG_S = 3.0
"""What takes longer without the mark `slow` is told: `make test` has only what is soon over."""
LONG_MARKS = {"slow", "nightly"}

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


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            needs.need(name)


@dataclass(eq=False)
class Notes:
    """What failed, took long or was left out: printed at the end, or written to `path` for tests/__main__.py.

    strict: a skip that names no need fails the run; so does an expected failure (xfail), which hides as much.
    """

    strict: bool
    path: Path | None
    failed: dict[str, float] = field(default_factory=dict)
    long: dict[str, float] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unexplained: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = report.duration
        if not LONG_MARKS & report.keywords.keys():
            self.long[report.nodeid] = self.long.get(report.nodeid, 0.0) + report.duration
        self._count_skipped(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._count_skipped(report)

    def _count_skipped(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped:
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        if name := needs.needed(str(reason)):
            self.left_out[name] += 1
        else:
            self.unexplained[report.nodeid] = str(reason)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.strict and self.unexplained and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.long = {test: seconds for test, seconds in self.long.items() if seconds > LONG_S}
        if self.path is not None:
            self.path.write_text(json.dumps({"failed": self.failed, "long": self.long, "left_out": self.left_out}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.strict and self.unexplained:
            terminalreporter.section("skipped without leave", red=True, bold=True)
            for test_id, reason in self.unexplained.items():
                terminalreporter.write_line(f"{test_id}: {reason}")
            terminalreporter.write_line("let them run here, or mark what they need: tests/needs.py")
        if self.path is not None:
            return
        for test, seconds in sorted(self.long.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"took {seconds:.1f} s without the mark `slow`: {test}")
        if self.left_out:
            terminalreporter.write_line(needs.explain(self.left_out))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # Its reports go to the process that started it.
    # Taken away, so that a run that a test starts does not write into it.
    path = os.environ.pop(NOTES, "")
    strict = any(os.environ.get(name, "").lower() in ("1", "true") for name in STRICT)
    config.pluginmanager.register(Notes(strict, Path(path) if path else None), "notes")
