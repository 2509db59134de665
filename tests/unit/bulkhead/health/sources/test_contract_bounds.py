"""What goes beyond the contracts is not looked at: one message of a compromised service would hold the watch up."""

import json

import pytest

from bulkhead.health.sources.contract_bounds import is_within_bounds
from bulkhead.health.sources.journal import JournalReader
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.peer import AnswerRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from tests.paths import EXAMPLES

JOURNALLED = {row.type for row in catalog.ROWS if row.plane == "mesh"}
FILES = sorted(path for path in EXAMPLES.glob("*.json") if path.stem.rpartition(".v")[0] in JOURNALLED)
CALL = {"call_id": "c1", "step_id": "s1", "attempt": 1, "tool": "look", "arguments_json": "{}"}
ASK = {"ask_id": "a1", "step_id": "s1", "attempt": 1, "plan_version": 1, "targets": ["s2"], "question": "and?"}
FAILED = {"call_id": "c1", "step_id": "s1", "outcome": "failed", "failure": {"code": "bad", "message": "no"}}


def steps(count: int, inputs: int) -> dict[str, object]:
    return {"plan": {"version": 1, "steps": [{"id": f"s{at}", "inputs": ["a"] * inputs} for at in range(count)]}}


def test_whatever_a_contract_allows_is_within() -> None:
    for path in FILES:
        assert is_within_bounds(json.loads(path.read_text())), path.name
    token, name = "x" * 64, "n" * bounds.MAX_NAME_CHARS
    for body in (
        ToolCallRequested(
            call_id=token,
            step_id=token,
            attempt=1,
            tool=name,
            deadline_unix_ms=1,
            arguments_json="x" * bounds.MAX_ARGUMENTS_BYTES,
        ),
        ToolCallReplied(
            call_id=token, step_id=token, outcome="failed", failure=Failure.from_text(name, "m" * 9_999, "h" * 9_999)
        ),
        AnswerRequested(
            ask_id=token,
            step_id=token,
            attempt=1,
            plan_version=1,
            deadline_unix_ms=1,
            mode="any",
            targets=(token,) * bounds.MAX_ASKED_STEPS,
            question="q" * bounds.MAX_REASON_CHARS,
        ),
    ):
        assert is_within_bounds(json.loads(body.encode()))
    assert is_within_bounds(steps(bounds.MAX_PLAN_STEPS, bounds.MAX_STEP_INPUTS))


@pytest.mark.parametrize(
    ("way", "kind", "body"),
    [
        ("worker.tool_executor", "mesh.tool.call_requested.v1", CALL | {"arguments_json": "x" * 100_000}),
        ("worker.tool_executor", "mesh.tool.call_requested.v1", CALL | {"arguments_json": {"q": ["a1"] * 40_000}}),
        ("worker.tool_executor", "mesh.tool.call_requested.v1", CALL | {"tool": "aB" * 100_000}),
        ("worker.tool_executor", "mesh.tool.call_requested.v1", CALL | {"step_id": "s" * 100_000}),
        (
            "tool_executor.worker",
            "mesh.tool.call_replied.v1",
            FAILED | {"failure": {"code": "c" * 9_000, "message": ""}},
        ),
        (
            "tool_executor.worker",
            "mesh.tool.call_replied.v1",
            FAILED | {"failure": {"code": "c", "message": "m" * 90_000}},
        ),
        ("worker.planner", "mesh.peer.answer_requested.v1", ASK | {"targets": ["s2"] * 20_000}),
        ("worker.planner", "mesh.peer.answer_requested.v1", ASK | {"targets": ["s" * 100_000]}),
        ("worker.planner", "mesh.peer.answer_requested.v1", ASK | {"question": "w " * 100_000}),
        ("planner.gateway", "mesh.plan.adopted.v1", steps(12_000, 1)),
        ("planner.gateway", "mesh.plan.adopted.v1", steps(2, 20_000)),
        ("planner.gateway", "mesh.plan.adopted.v1", {"plan": {"version": 1, "steps": [{"id": "i" * 9_000}]}}),
    ],
)
def test_what_a_receiver_rejects_for_its_size_tells_the_watch_nothing(way: str, kind: str, body: object) -> None:
    journal = JournalReader()
    found = journal.read(f"mesh.{way}.1.acme.t1.-", {"ce-type": kind, "ce-id": "m1"}, json.dumps(body).encode(), 1)
    assert not found and journal.unreadable == 1
