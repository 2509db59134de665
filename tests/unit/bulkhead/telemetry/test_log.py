"""A log line: what is long is cut, but of a traceback the end is kept, which says what happened."""

import json
import subprocess
import sys

import pytest

from bulkhead.telemetry.log import MAX_TRACEBACK_CHARS, MAX_VALUE_CHARS

PROGRAM = """
import sys
from bulkhead.telemetry import log
log.setup("worker", "0", as_json=sys.argv[1] == "json", level="info")
log.Log("x").error("broke", traceback="begin\\n" + "deep\\n" * 5_000 + "in the_one\\n", text="long " * 1_000)
"""
HOSTILE_REASON = r'log.Log("x").info("halted", reason="x\x1b[2J\r\n2026 error forged\u202e")'


@pytest.mark.parametrize("form", ["json", "text"])
def test_of_a_traceback_the_end_is_kept(form: str) -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True).stderr
    assert said.count("long") <= MAX_VALUE_CHARS / 5 and len(said) < MAX_TRACEBACK_CHARS * 2
    if form == "json":
        line = json.loads(said)
        assert line["traceback"].endswith("deep\nin the_one") and "begin" not in line["traceback"]
    else:
        assert said.endswith("deep\nin the_one\n") and "begin" not in said


def test_what_people_wrote_begins_no_line_and_moves_no_cursor() -> None:
    logging = PROGRAM.partition("log.Log")[0] + HOSTILE_REASON
    written = subprocess.run([sys.executable, "-c", logging, "text"], capture_output=True, text=True, check=True).stderr
    [first] = written.splitlines()
    assert first.endswith("reason=x [2J  2026 error forged") and first.isprintable()
