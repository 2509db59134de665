"""Long files of many tasks at once: no act is looked at twice, memory has a bound, and the watcher keeps its speed."""

import io
import json
import random
import re

import pytest

from bulkhead.health import watch
from bulkhead.health.sources.trace_rows import TraceRowReader
from bulkhead.health.text import normalize
from bulkhead.health.watch import Watch
from bulkhead_cli.inspect.analyze import analyze_trace, progress_reporter
from bulkhead_cli.inspect.trace_files import open_file
from bulkhead_cli.screen import SafeConsole

TASKS = 300


def row(number: int, task: str) -> dict:
    return {
        "id": f"r{number}",
        "task": task,
        "agent": "a",
        "action": "get",
        "arguments": {"id": 10_000 + number},
        "result": f"value {7919 * number}",
        "time": 1_790_000_000 + number,
    }


def interleaved(count: int) -> list[dict]:
    return [row(number, f"t{number % TASKS}") for number in range(count)]


def fold(rows: list[dict], over: Watch) -> list:
    return [found for event in TraceRowReader().read_all(rows) for found in over.fold_event(event)]


def test_tasks_that_nobody_ends_fill_no_memory_and_those_that_live_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_HELD_ACTS", 200)
    over, same = Watch(), {"task": "t", "agent": "b", "action": "look", "arguments": {"q": "x"}, "result": "no"}
    found = []
    for number in range(4):
        found += fold([same | {"id": f"s{number}"}, *(row(at, f"t{number}.{at}") for at in range(20))], over)
        assert len(over.loops) <= 40 and len(over.chatter) <= 40
    assert [(trip.detector, trip.level) for trip in found] == [("loop.repeat", "warn"), ("loop.repeat", "stop")]
    assert over.forgotten == 0, "those that were forgotten had come to their end"
    fold([row(99, "t0.0"), {"task": "t0.0", "agent": "a", "ended": True}, row(99, "t0.1")], over)
    assert over.forgotten == 2


def test_how_far_a_long_file_is_read_is_said_on_a_terminal_alone(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in interleaved(2_000)))
    shown, times = io.StringIO(), iter(range(100))
    opened = open_file(path, "auto")
    with progress_reporter(
        opened, SafeConsole(file=shown, force_terminal=True, width=120), lambda: float(next(times))
    ) as tell:
        assert tell is not None
        report = analyze_trace(opened, tell=tell)
    said = re.findall(r"([\d,]+) events judged, ([\d,]+)/s, (\d+)% of the file, about", shown.getvalue())
    assert [events for events, _, _ in said][:2] == ["256", "512"] and {rate for _, rate, _ in said} == {"256"}
    parts = [int(part) for _, _, part in said]
    assert parts == sorted(parts) and 0 < parts[0] < parts[-1] <= 100 and report.events == 2_000
    with progress_reporter(opened, SafeConsole(file=shown, force_terminal=False)) as tell:
        assert tell is None


def test_ids_and_times_are_found_word_by_word_as_in_the_whole() -> None:
    chance = random.Random(8)
    parts = [
        "2026-11-21T09:00:02Z",
        "2026-11-21 09:00",
        "10:11:12.5",
        "1790000000",
        "1790000000.25",
        "1790000000123",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "deadbeef01",
        "req-1a2b3c",
        "id:1234",
        "id: 1234",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "0xdeadbeef",
        "word",
        "a",
        "12",
        "v1.2.3",
        "run#77",
    ]
    for _ in range(2_000):
        text = "".join(chance.choice(parts) + chance.choice((" ", " ", "/", ",", "", "-")) for _ in range(6)).strip()
        whole = normalize._TIMES.sub("<time>", text)
        heard, as_one = [], []
        found = normalize._without_ids(whole, lambda one, heard=heard: heard.append(one.group()) or "<id>")
        assert found == normalize._IDS.sub(lambda one, as_one=as_one: as_one.append(one.group()) or "<id>", whole)
        assert heard == as_one
