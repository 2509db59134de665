"""The mandatory part of A2A's public Technology Compatibility Kit. In: its folder, an agent's address. Out: how each of
its tests ended."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.integration.conformance.suite import ran

WORDS = ["--transport=jsonrpc,http_json", "-m", "must", "-q", "--tb=short", "-p", "no:cacheprovider"]
"""gRPC is not offered."""
ROOM = "tests.compatibility."


@dataclass(frozen=True)
class Results:
    """Names of tests, each of the failures with its message."""

    passed: frozenset[str]
    failed: dict[str, str]
    skipped: dict[str, str]


async def tck(folder: Path, url: str, report: Path, part: str = "") -> Results:
    """One run. report: a file to write. part: a file of its tests; all, if none."""
    words = ["-m", "pytest", f"tests/compatibility/{part}", f"--sut-host={url}", *WORDS, f"--junitxml={report}"]
    code, said = await ran([str(folder / ".venv/bin/python"), *words], folder)
    assert code in (0, 1), said  # Anything else says that it did not run.
    passed, failed, skipped = set(), {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix(ROOM)}.{case.get('name')}"
        for end in case:
            if end.tag in ("failure", "error"):
                failed[name] = f"{end.get('message')}"
            elif end.tag == "skipped":
                skipped[name] = f"{end.get('message')}"
        if name not in failed and name not in skipped:
            passed.add(name)
    return Results(frozenset(passed), failed, skipped)
