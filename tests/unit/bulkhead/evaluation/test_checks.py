"""Plain checks: what passes, what fails, and why."""

from pathlib import Path

import pytest

from bulkhead.evaluation import python_checks
from bulkhead.evaluation.answers import CaseAnswer, ToolCallRecord
from bulkhead.evaluation.cases import CaseError, Check
from bulkhead.evaluation.checks import failed_checks, find_numbers

TOTAL = {"type": "object", "required": ["total"], "properties": {"total": {"const": 5}}}


@pytest.mark.parametrize(
    ("check", "text", "passes"),
    [
        ({"contains": "40 EUR"}, "The refund is 40\n  eur.", True),
        ({"contains": "40 EUR"}, "The refund is 40 [#3fa9c1d2e4b5] EUR.", True),
        ({"contains": "3fa9"}, "The refund [#3fa9c1d2e4b5].", False),
        ({"contains": "40 EUR"}, "The refund is 50 EUR.", False),
        ({"not_contains": "free"}, "It is Free of charge.", False),
        ({"not_contains": "free"}, "It costs 4.", True),
        ({"regex": r"^\d+$"}, "42", True),
        ({"regex": r"^\d+$"}, "It is 42", False),
        ({"regex": "^(a+)+$"}, "a" * 60_000 + "!", False),
        ({"regex": "x"}, "\ud800 x", True),
        ({"json_schema": TOTAL}, r'"\ud800"', False),
        ({"equals_number": 1234.5}, "It is EUR 1,234.50.", True),
        ({"equals_number": 1234.5}, "Es sind 1.234,50 EUR.", True),
        ({"equals_number": 1234.5}, "C'est 1\u202f234,50 EUR.", True),
        ({"equals_number": 12}, "It is 120.", False),
        ({"equals_number": -3}, "It is \u22123 degrees.", True),
        ({"equals_number": 0}, "None.", False),
        ({"equals_number": {"value": 100, "tolerance": 0.5}}, "About 100.4 m", True),
        ({"equals_number": {"value": 100, "tolerance": 0.5}}, "About 100.6 m", False),
        ({"json_schema": TOTAL}, '{"total": 5}', True),
        ({"json_schema": TOTAL}, '```json\n{"total": 5}\n```', True),
        ({"json_schema": TOTAL}, '{"total": 6}', False),
        ({"json_schema": TOTAL}, 'Here: {"total": 5}', False),
        ({"entities": ["Ada Lovelace", "Paris"]}, "ada  lovelace lived in Paris.", True),
        ({"entities": ["Ada", "Rome"]}, "Ada saw Romeo.", False),
        ({"forbidden": ["cat"]}, "A category.", True),
        ({"forbidden": ["dog", "cat"]}, "The Cat sat.", False),
        ({"length": {"max_words": 3}}, "one two three", True),
        ({"length": {"max_words": 3}}, "one two three four", False),
        ({"length": {"min_chars": 4}}, "abc [#3fa9c1d2e4b5]", False),
        ({"personal_data": []}, "Write to the desk.", True),
        ({"personal_data": []}, "Write to ada@example.org.", False),
        ({"personal_data": ["email"]}, "Write to ada@example.org.", True),
        ({"personal_data": ["email"]}, "Pay to DE89 3704 0044 0532 0130 00.", False),
    ],
)
def test_a_check_of_the_text(check: dict[str, object], text: str, passes: bool) -> None:
    why = failed_checks([Check.model_validate(check)], CaseAnswer(text))
    assert (not why) is passes, why


def test_a_citation_is_of_a_document_by_its_name() -> None:
    check = Check(cites="terms.md")
    assert not failed_checks([check], CaseAnswer("x", ("terms.md",)))
    assert failed_checks([check], CaseAnswer("terms.md says so", ("other.md",))) == (
        "cites: terms.md (cited: other.md)",
    )


def test_every_check_that_fails_is_told() -> None:
    checks = [Check(contains="a"), Check(equals_number=7), Check(contains="z")]
    assert failed_checks(checks, CaseAnswer("abc 3")) == (
        "equals_number: 7.0 (numbers: 3)",
        "contains: z (it does not stand in the answer)",
    )


def test_a_separator_is_read_both_ways_where_it_may_be_either() -> None:
    assert list(find_numbers("1,234")) == [1234.0, 1.234] and list(find_numbers("2026-05-01")) == [2026.0, 5.0, 1.0]
    assert list(find_numbers("1.2.3")) == [] and list(find_numbers("v2 x3")) == []


CALLS = (
    ToolCallRecord("search", '{"query": "late", "limit": 3}', "succeeded"),
    ToolCallRecord("calculate", "", "failed"),
    ToolCallRecord("pay", '{"amount": 1}', "refused"),
)


@pytest.mark.parametrize(
    ("check", "calls", "says"),
    [
        ({"tool_called": "calculate"}, CALLS, ""),
        ({"tool_called": "send"}, CALLS, "called: search, calculate"),
        ({"tool_called": "send"}, None, "called: nothing"),
        ({"tool_called": {"tool": "search", "arguments": {"limit": 3}}}, CALLS, ""),
        ({"tool_called": {"tool": "search", "arguments": {"limit": 4}}}, CALLS, 'called with {"query"'),
        ({"tool_called": {"tool": "calculate", "arguments": {"a": None}}}, CALLS, "may not be read"),
        ({"tool_not_called": "send"}, CALLS, ""),
        ({"tool_not_called": "search"}, CALLS, "it was asked for 1 times"),
        ({"tool_called": "pay"}, CALLS, "called: search, calculate"),
        ({"tool_not_called": "pay"}, CALLS, "it was asked for 1 times"),
        ({"tool_not_called": "send"}, None, "not all calls of the task are known"),
        ({"max_cost_usd": 0.01}, CALLS, ""),
        ({"max_cost_usd": 0.001}, CALLS, "it cost 0.002000"),
        ({"max_latency_s": 1.5}, CALLS, ""),
        ({"max_latency_s": 1}, CALLS, "it took 1.5"),
        ({"answered": "partly"}, CALLS, ""),
        ({"answered": "yes"}, CALLS, "it is partly"),
        ({"reference_overlap": 0.8}, CALLS, ""),
        ({"reference_overlap": 0.9}, CALLS, "it is 0.80"),
    ],
)
def test_a_check_of_what_the_task_did(
    check: dict[str, object], calls: tuple[ToolCallRecord, ...] | None, says: str
) -> None:
    answer = CaseAnswer("Forty EUR are refunded", (), "partly", calls, 2_000, 1_500)
    reasons = failed_checks([Check.model_validate(check)], answer, ["A fare.", "forty EUR, are: refunded, late!!! now"])
    assert not reasons if not says else says in reasons[0], reasons


def test_a_check_in_python_tells_its_own_reason_and_its_own_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checks.py").write_text(
        "def holds(answer): return answer.text == 'a'\n"
        "def tells(answer): return 'no   word' if answer.cited else ''\n"
        "def breaks(answer): return 1 / 0\n"
        "def forgets(answer): pass\n"
        "def leaves(answer): raise SystemExit(3)\n"
        "def halves(answer): return '\\ud800'\n"
        "def hangs(answer): __import__('threading').Event().wait()\n"
    )

    def reasons(name: str, answer: CaseAnswer) -> str:
        return "".join(failed_checks([Check(python=f"{tmp_path}/checks.py:{name}")], answer))

    assert not reasons("holds", CaseAnswer("a")) and "it does not hold" in reasons("holds", CaseAnswer("b"))
    assert not reasons("tells", CaseAnswer("a")) and "(no word)" in reasons("tells", CaseAnswer("a", ("terms.md",)))
    assert "ZeroDivisionError" in reasons("breaks", CaseAnswer("a"))
    assert "it returned None" in reasons("forgets", CaseAnswer("a"))
    assert "it raised SystemExit: 3" in reasons("leaves", CaseAnswer("a"))
    assert r"(\ud800)" in reasons("halves", CaseAnswer("a"))
    monkeypatch.setattr(python_checks, "TIMEOUT_S", 0.01)
    assert "it gave no verdict in 0.01 s" in reasons("hangs", CaseAnswer("a"))
    with pytest.raises(CaseError, match="cannot be loaded"):
        reasons("absent", CaseAnswer("a"))
