"""How `bulkhead report` shows figures and missed targets, and which targets it takes."""

import pytest

from bulkhead.journal.quality import QualityReport
from bulkhead_cli.inspect.broker import _print_report
from bulkhead_cli.inspect.commands import targets_ms
from bulkhead_cli.output import CommandError, Exit
from bulkhead_contracts.result import Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.session import TurnTaken
from bulkhead_contracts.task import TaskEnded

NOW = 1_795_231_204_272


def test_a_missed_target_and_an_unused_feature_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    usage = Usage(cost_usd_micros=12_300, estimated_usd_micros=4_000)
    found = QualityReport(requested={"demo/t": ("search", NOW)})
    found.ended["demo/t"] = TaskEnded(status="succeeded", usage=usage), NOW + 9_000
    found.asked_ahead["demo/t", "s"] = RetrievalReplied(call_id="c", step_id="s", outcome="found", usage=usage)
    _print_report(found.as_json(targets_ms(["search=2.5", "never=1"])), NOW)
    said = " ".join(capsys.readouterr().out.split())
    assert "search misses its target: p95 is 9.0 s, the target 2.5 s" in said and "2.5 s missed" in said
    assert "queries embedded ahead: 1, used 0, wasted 1 ($0.0123 of $0.0123); saved 0 ms of waiting" in said
    assert "about $0.0123 ($0.004 estimated)" in said and "no task of feature never has ended" in said


def test_nothing_is_said_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    _print_report(QualityReport().as_json({}), NOW)
    assert capsys.readouterr().out.startswith("no task was submitted and ended since")


def test_conversations_have_a_row_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = QualityReport(requested={"demo/t": ("chat", NOW)})
    found.ended["demo/t"] = TaskEnded(status="succeeded", usage=Usage(input_tokens=7)), NOW
    turn = TurnTaken(number=1, task="demo", text="x", person="ann", taken_unix_ms=NOW, whole_tokens=9, memory_tokens=2)
    found.turns["demo/s", 1] = turn.model_copy(update={"task": "demo/t"})
    _print_report(found.as_json({}), NOW)
    said = " ".join(capsys.readouterr().out.split())
    assert "tokens saved" in said and "chat 1 1 · · 0 0 tokens, $0.00 7" in said, said


@pytest.mark.parametrize("given", ["search", "search=", "=3", "search=fast", "a b=3", "search=-1", "search=1e9"])
def test_what_is_no_target_is_wrong_usage(given: str) -> None:
    with pytest.raises(CommandError) as ended:
        targets_ms([given])
    assert ended.value.code is Exit.USAGE and "search=30" in ended.value.hint
