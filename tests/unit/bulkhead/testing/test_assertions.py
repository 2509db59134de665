"""Claims about a task: each row of what makes one hold or not, and that the message says why."""

import pytest

from bulkhead.journal.history import JournalEntry
from bulkhead.testing.assertions import Effects, TaskAnswer, TaskSpend, Trace, refute
from bulkhead_contracts.budget import Amount, Reserved, Settled
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body


def entry(
    body: Body, sender: str = "worker", receiver: str = "tool_executor", reply: JournalEntry | None = None
) -> JournalEntry:
    return JournalEntry(1, 1_000, sender, receiver, "t", body.ce_type(), "id", "", body, reply=reply)


def call(call_id: str, outcome: str = "", tool: str = "refund", arguments: str = '{"order": "A-1"}') -> JournalEntry:
    asked = ToolCallRequested(
        call_id=call_id, step_id="s1", attempt=1, tool=tool, arguments_json=arguments, deadline_unix_ms=2_000
    )
    failure = Failure(code="why", message="because") if outcome in ("failed", "refused", "uncertain") else None
    reply = None
    if outcome:
        said = ToolCallReplied(call_id=call_id, step_id="s1", outcome=outcome, failure=failure)  # type: ignore[arg-type]
        reply = entry(said, "tool_executor", "worker")
    return entry(asked, reply=reply)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([call("c1", "succeeded")], ""),
        ([call("c1", "failed"), call("c2", "succeeded"), call("c3", "refused")], ""),
        ([], "refund was never done\nnobody asked for refund (tools that were called: none)"),
        ([call("c1", "succeeded", tool="look")], "nobody asked for refund (tools that were called: look)"),
        ([call("c1", "failed")], "call c1 -> failed: why: because\nit was asked for"),
        ([call("c1")], "call c1 -> no reply yet"),
        ([call("c1", "succeeded"), call("c2", "succeeded")], "refund was done twice\n"),
        ([call("c1", "succeeded"), call("c2", "uncertain")], "refund was done once, and once perhaps\n"),
        ([call("c1", "uncertain")], "refund was done not once, and once perhaps\n"),
        ([call(f"c{n}", "succeeded") for n in range(20)], "refund was done 20 times\n"),
    ],
)
def test_exactly_once(calls: list[JournalEntry], told: str) -> None:
    effects = Effects(calls)
    if not told:
        assert effects.exactly_once("refund").outcome == "succeeded"
        return
    with pytest.raises(AssertionError) as refuted:
        effects.exactly_once("refund")
    assert told in str(refuted.value)
    assert len(str(refuted.value).splitlines()) < 20


def test_effects_with_arguments() -> None:
    other = call("c2", "succeeded", arguments='{"order": "B-2"}')
    effects = Effects([call("c1", "succeeded"), other, call("c3", "succeeded", arguments="no json")])
    assert effects.exactly_once("refund", order="B-2").call_id == "c2"
    assert effects.never("refund", order="C-3") and effects.never("pay")
    with pytest.raises(AssertionError, match=r"effects.never\('refund', order='A-1'\): there are 1\n"):
        effects.never("refund", order="A-1")


@pytest.mark.parametrize(("outcome", "done"), [("refused", False), ("failed", False), ("uncertain", True), ("", True)])
def test_what_may_have_been_done_is_not_never(outcome: str, done: bool) -> None:
    effects = Effects([call("c1", outcome)])
    if done:
        with pytest.raises(AssertionError):
            effects.never("refund")
    else:
        assert effects.never("refund")


def reserved(name: str, micros: int) -> JournalEntry:
    body = Reserved(
        reservation_id=name,
        call_id="c",
        step_id="s1",
        service="model_gateway",
        resource="a-model",
        amount=Amount(cost_usd_micros=micros),
        scopes=(),
        reserved_unix_ms=1,
    )
    return entry(body, "budget", "journal")


def settled(name: str, micros: int, *, estimated: bool = False) -> JournalEntry:
    body = Settled(reservation_id=name, call_id="c", usage=Usage(cost_usd_micros=micros), estimated=estimated)
    return entry(body, "model_gateway", "budget")


def test_what_is_not_settled_counts_in_full_and_a_repeat_counts_once() -> None:
    spend = TaskSpend([reserved("a", 100), reserved("b", 50), reserved("a", 100), settled("a", 30), settled("a", 30)])
    assert (spend.micros, spend.usd, spend.open) == (80, 0.00008, ["b"])
    assert spend.within(0.00008)
    with pytest.raises(AssertionError, match=r"it has cost \$0.000080 in 2 calls\n  \$0.000050 .* not settled\n"):
        spend.within(0.000079)


def test_a_guess_of_the_provider_counts_as_reserved() -> None:
    assert TaskSpend([reserved("a", 100), settled("a", 0, estimated=True)]).micros == 100


def test_edges() -> None:
    trace = Trace([call("c1", "succeeded"), reserved("a", 1), settled("a", 1)])
    assert trace.has_edge("worker", "tool_executor") == 1 and trace.has_edge("model_gateway", "budget") == 2
    assert trace.has_no_edge("worker", "planner")
    with pytest.raises(AssertionError, match=r"(?s)no such message.*worker -> tool_executor \(1\)$"):
        trace.has_edge("worker", "planner")
    with pytest.raises(AssertionError, match="there are 1"):
        trace.has_no_edge("worker", "tool_executor")
    with pytest.raises(ValueError, match="no service 'nobody'; there are"):
        trace.has_edge("nobody", "planner")


def test_answers() -> None:
    result = {"standing": "ok", "citations": [{"document": "fares.md"}, {"document": "fares.md"}]}
    answer = TaskAnswer({"task_id": "t", "answer": "It costs  EUR 35. [#0]", "result": result})
    assert answer.cites("fares.md") and answer.sources == ["fares.md"] and answer.says("costs eur 35")
    with pytest.raises(AssertionError, match=r"rules.md is not cited; it cites fares.md\n  It costs"):
        answer.cites("fares.md", "rules.md")
    with pytest.raises(AssertionError, match=r"says\('EUR 36'\): it does not"):
        answer.says("EUR 36")
    nothing = TaskAnswer({"task_id": "t", "answer": None, "result": None})
    with pytest.raises(AssertionError, match=r"it cites nothing\n  \(no answer\)"):
        nothing.cites("fares.md")


def test_long_evidence_is_cut() -> None:
    with pytest.raises(AssertionError, match=r"  11\n  \.\.\. and 88 more\nlook$"):
        refute("claim", "found", map(str, range(100)), "look")
