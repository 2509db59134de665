"""`bulkhead analyze`: the forms it reads, hostile files, and what it says."""

import gzip
import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.inspect.analyze import analyze_trace
from bulkhead_cli.inspect.trace_files import open_file
from bulkhead_cli.main import app
from bulkhead_cli.output import CommandError
from tests.health_set.scoring import score
from tests.paths import HISTORIES

LOOP = [
    {"task": "t1", "agent": "a", "action": "search", "arguments": {"q": "x"}, "result": "no", "time": n}
    for n in range(1_790_000_000, 1_790_000_004)
]


def run(*words: str):
    return CliRunner().invoke(app, ["analyze", *words])


def found(path: Path, *words: str) -> dict:
    done = run(str(path), "--json", *words)
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_judged_and_the_exit_code_says_so(tmp_path) -> None:
    path = write(tmp_path / "trace.jsonl", LOOP)
    told = found(path)
    assert told["form"] == "rows" and told["stops"] == 1 and told["tasks"] == 1
    assert [(trip["detector"], trip["level"]) for trip in told["trips"]] == [
        ("loop.repeat", "warn"),
        ("loop.repeat", "stop"),
    ]
    assert run(str(path)).exit_code == 1
    assert run(str(write(tmp_path / "honest.jsonl", LOOP[:2]))).exit_code == 0
    packed = tmp_path / "trace.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert found(packed)["stops"] == 1
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps(LOOP, indent=1))
    assert found(whole)["stops"] == 1


def test_a_deadlock_of_rows_is_told_with_its_victim(tmp_path) -> None:
    rows = [
        {"agent": "lease:crm", "waits_on": ["a"], "time": 1},
        {"agent": "lease:db", "waits_on": ["b"], "time": 2},
        {"agent": "a", "waits_on": ["lease:db"], "time": 3},
        {"agent": "b", "waits_on": ["lease:crm"], "time": 4},
    ]
    told = found(write(tmp_path / "leases.jsonl", rows))
    (trip,) = told["trips"]
    assert trip["detector"] == "deadlock" and trip["facts"]["victim"] == "run/b"
    told = found(write(tmp_path / "answered.jsonl", [*rows, {"agent": "a", "action": "go on", "time": 4.5}]))
    assert told["trips"] == [], "it was only a little late"
    either = [{"agent": "a", "waits_on": ["b", "c"], "waits": "any"}, {"agent": "b", "waits_on": ["a"]}]
    assert found(write(tmp_path / "either.jsonl", either))["trips"] == []
    knot = [*either, {"agent": "c", "waits_on": "a"}]
    assert found(write(tmp_path / "knot.jsonl", knot))["trips"][0]["facts"]["circle"] == ["run/a", "run/b", "run/c"]


def test_otel_spans_are_joined_to_their_agents(tmp_path) -> None:
    def attribute(key, value):
        return {"key": key, "value": {"stringValue": value}}

    spans = [
        {
            "traceId": "t",
            "spanId": "top",
            "name": "invoke_agent planner",
            "startTimeUnixNano": "1790000000000000000",
            "endTimeUnixNano": "1790000099000000000",
            "attributes": [
                attribute("gen_ai.operation.name", "invoke_agent"),
                attribute("gen_ai.agent.name", "planner"),
            ],
        }
    ]
    for number in range(4):
        at = (1_790_000_001 + number) * 10**9
        spans.append(
            {
                "traceId": "t",
                "spanId": f"s{number}",
                "parentSpanId": "top",
                "name": "execute_tool search",
                "startTimeUnixNano": str(at),
                "endTimeUnixNano": str(at + 5 * 10**8),
                "status": {"code": 2},
                "attributes": [
                    attribute("gen_ai.operation.name", "execute_tool"),
                    attribute("gen_ai.tool.name", "search"),
                    attribute("gen_ai.tool.call.arguments", '{"q": "x"}'),
                    attribute("error.type", "timeout"),
                ],
            }
        )
    path = tmp_path / "spans.json"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
    told = found(path)
    assert told["form"] == "otel" and told["stops"] == 1 and told["trips"][-1]["agents"] == ["planner"]
    assert told["trips"][-1]["detector"] == "loop.error"
    flat = [
        {
            "name": span["name"],
            "context": {"trace_id": "t", "span_id": span["spanId"]},
            "parent_id": span.get("parentSpanId"),
            "start_time": "2026-11-21T09:00:00Z",
            "end_time": f"2026-11-21T09:00:{number:02}Z",
            "status": {"status_code": "UNSET"},
            "attributes": {one["key"]: one["value"]["stringValue"] for one in span["attributes"]},
        }
        for number, span in enumerate(spans)
    ]
    assert found(write(tmp_path / "flat.jsonl", flat))["form"] == "otel"


def test_chats_are_calls_with_their_answers(tmp_path) -> None:
    messages = [{"role": "user", "content": "How many moons has Mars?"}]
    for number in range(4):
        messages.append(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": f"c{number}",
                        "type": "function",
                        "function": {"name": "search", "arguments": '{"q":"moons"}'},
                    }
                ],
            }
        )
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": "nothing found"})
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": messages}))
    told = found(path)
    assert (told["form"], told["stops"]) == ("openai", 1)
    talk = [{"role": role, "content": f"{role} says {n}"} for n in range(40) for role in ("user", "assistant")]
    assert found(write(tmp_path / "talk.jsonl", talk))["stops"] == 0
    rows = run(str(path), "--rows")
    assert rows.exit_code == 0
    again = write(tmp_path / "again.jsonl", [json.loads(line) for line in rows.stdout.splitlines()])
    assert found(again)["stops"] == 1


@pytest.mark.slow
def test_exported_histories_of_this_mesh_are_read_and_honest_ones_are_not_stopped() -> None:
    scripted = {"runaway"}
    """There the model is told to call the same tool over and over."""
    for path in sorted(HISTORIES.glob("*.jsonl*")):
        told = found(path)
        assert told["form"] == "bulkhead" and told["events"] > 0
        loops = any(path.name.startswith(one) for one in scripted)
        assert (told["stops"] > 0) == loops, f"{path.name}: {told['trips']}"


HOSTILE = {
    "empty": b"",
    "blank": b"\n\n  \n",
    "binary": bytes(range(256)) * 10,
    "not json": b"hello\n",
    "deep": b'{"agent": "a", "action": "x", "arguments": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "cut gzip": gzip.compress(json.dumps(LOOP[0]).encode() * 100)[:40],
    "no gzip": b"\x1f\x8bnonsense",
    "a number": b"17\n",
    "no agent": b'{"action": "x"}\n',
    "nothing": b'{"agent": "a"}\n',
    "agent is a list": b'{"agent": ["a"], "action": "x"}\n',
    "long name": json.dumps({"agent": "a" * 1000, "action": "x"}).encode(),
    "infinite": b'{"agent": "a", "action": "x", "time": Infinity}\n',
    "tokens": b'{"agent": "a", "action": "x", "tokens": -4}\n',
    "mode": b'{"agent": "a", "waits_on": ["b"], "waits": "some"}\n',
    "second line": b'{"agent": "a", "action": "x"}\n{"agent": \n',
    "spans": b'{"resourceSpans": [{"scopeSpans": "x"}]}\n',
    "messages": b'{"messages": "x"}\n',
    "history": b'{"bulkhead_history": 1}\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, name) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE[name])
    done = run(str(path))
    assert done.exit_code in (1, 2) and done.exception.__class__ is SystemExit, (done.exception, done.output)
    assert len(done.stderr.strip().splitlines()) == 1 and "error:" in done.stderr


def test_unknown_files_and_forms_are_wrong_usage(tmp_path) -> None:
    assert run(str(tmp_path / "none")).exit_code == 2
    assert run(str(tmp_path)).exit_code == 2
    assert run(str(write(tmp_path / "x", LOOP)), "--form", "csv").exit_code == 2
    assert run(str(tmp_path / "x"), "--form", "bulkhead").exit_code == 2
    done = run(str(tmp_path / "x"), "--form", "otel")
    assert done.exit_code == 2, "a loop that is read as something else is not a file in which nothing was found"
    assert "no act that could be judged, read as otel" in done.stderr


@pytest.mark.slow
def test_noise_in_any_shape_never_crashes(tmp_path) -> None:
    chance = random.Random(7)
    atoms = [None, True, 0, -1, 1e308, "", "a", "x" * 5_000, [], {}, [[]], {"a": {}}, "2026-11-21", 10**30]
    keys = [
        "task",
        "agent",
        "action",
        "arguments",
        "result",
        "error",
        "text",
        "to",
        "waits_on",
        "waits",
        "tokens",
        "time",
        "time_unix_ms",
        "id",
        "ended",
        "productive",
        "since",
    ]
    for _ in range(700):
        rows = [
            {"agent": "a", "action": "x"} | {key: chance.choice(atoms) for key in chance.sample(keys, 4)}
            for _ in range(3)
        ]
        for form in ("rows", "otel", "openai"):
            try:
                analyze_trace(open_file(write(tmp_path / "noise", rows), form))
            except CommandError as stop:
                assert str(stop) and stop.hint


def test_scoring_counts_what_was_judged_wrong() -> None:
    runs = [
        {"name": "l1", "family": "repeat", "looping": True, "rows": LOOP, "start": 0, "period": 1},
        {"name": "l2", "family": "repeat", "looping": True, "rows": LOOP[:3], "start": 0, "period": 1},
        {"name": "h1", "family": "short", "looping": False, "rows": LOOP[:2]},
        {"name": "h2", "family": "short", "looping": False, "rows": LOOP},
    ]
    table = score(runs)
    assert (table.precision, table.recall) == (0.5, 0.5)
    assert table.families["repeat"].wrong == ["l2: not stopped"]
    assert table.families["short"].wrong == ["h2: stopped by loop.repeat at row 3"]
    assert table.as_json()["families"][0]["most_rounds"] == 4.0


def test_what_is_said_to_several_is_one_message_with_its_tokens_once(tmp_path) -> None:
    words = ["harbour tariff", "crane ledger", "pilot storm", "anchor cargo"]
    rows = [
        {"agent": by, "to": to, "text": f"{words[at % 4]} of {by}, {words[(at + 1) % 4]}?", "tokens": 10}
        for at in range(11)
        for by, to in (("a", ["b", "c"]), ("b", ["a", "c"]), ("c", ["a", "b"]))
    ]
    trips = [one for one in found(write(tmp_path / "triangle.jsonl", rows))["trips"] if one["detector"][:4] == "chat"]
    assert {tuple(one["agents"]) for one in trips} == {("a", "b", "c")} and trips[-1]["level"] == "stop"
    told = found(
        write(
            tmp_path / "one.jsonl",
            [
                {
                    "agent": "a",
                    "to": list("bcdefgh"),
                    "text": f"vote {words[at % 4]} or {words[at // 4]}",
                    "tokens": 1_500,
                }
                for at in range(13)
            ],
        )
    )
    assert told["stops"] == 0 and [one for one in told["trips"] if one["detector"] == "chatter.task"] == []
    assert "to is missing" in run(str(write(tmp_path / "bad.jsonl", [{"agent": "a", "to": [""], "text": "x"}]))).output
    assert "over 64" in run(str(write(tmp_path / "bad.jsonl", [{"agent": "a", "to": ["b"] * 65, "text": "x"}]))).output
