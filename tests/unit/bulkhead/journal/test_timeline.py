"""The timeline tells what was asked, how it ended, what was retried, waited for and written; texts when asked for."""

import io

import pytest
from rich.console import Console

from bulkhead.journal import lines, timeline
from bulkhead.journal.history import JournalEntry, build_entries
from bulkhead.journal.rows import describe_body
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Completeness, Failure, Omission
from bulkhead_contracts.tool import ToolCallReplied
from tests.paths import HISTORIES

CUT = Completeness.with_omissions(
    Omission(reason="truncated", what="output of x"), Omission(reason="failed_part", what="y")
)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"outcome": "succeeded"}, "succeeded"),
        ({"outcome": "failed", "failure": Failure.from_text("slow_answer", "it")}, "failed slow_answer"),
        ({"outcome": "uncertain", "failure": Failure.from_text("error_body", "it")}, "uncertain error_body"),
        (
            {"outcome": "succeeded", "completeness": CUT, "sensitive": ("card", "email")},
            "succeeded incomplete: failed_part, truncated holds card, email",
        ),
    ],
)
def test_a_reply_of_a_tool_on_one_line(reply: dict, told: str) -> None:
    assert describe_body(ToolCallReplied(call_id="c", step_id="s", **reply)) == told


def recorded(name: str) -> list[JournalEntry]:
    return build_entries(load_history(next(iter(sorted(HISTORIES.glob(f"{name}.*"))))).messages)


def printed(name: str, texts: dict[str, str] | None = None) -> str:
    console = Console(width=10_000, record=True, file=io.StringIO())
    console.print(timeline.build_tree("t", recorded(name), 0, texts))
    return console.export_text()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("keyed_write", 'counter_increment {"name": "keyed"}  ⇒ succeeded 25 ms'),
        ("keyed_write", "2 attempts, written: counter keyed = 1"),
        ("uncertain_write", "nobody knows whether it was written"),
        ("provider_errors", "3 attempts (failed: provider_error, provider_error, provider_error)"),
        ("put_off", "put off: budget does not answer"),
        ("retried_with_reasons", "verdict.reached rejected Say how it is known."),
        ("answered", '{"start": "2025-05-26", "end": "2025-06-09"}'),
    ],
)
def test_arguments_results_retries_waits_and_what_a_write_did_are_told(name: str, line: str) -> None:
    assert line in printed(name)
    assert line.split("  ⇒")[0].split(" {")[0] in lines.render_rows(lines.build_rows(recorded(name), {}, content=True))


def test_texts_are_opened_when_asked_for_and_command_no_screen() -> None:
    said = next(
        one.body.content
        for one in recorded("answered")
        if isinstance(one.body, ModelCallReplied) and one.body.content and one.body.content.summary.endswith("…")
    )
    opened = printed("answered", {said.sha256: "the whole of it, \x1b[2J to the end"})
    assert "result: the whole of it" in opened and "\n" in opened
    rows = lines.build_rows(recorded("answered"), {said.sha256: "\x1b[2J\u202eevil"}, content=True)
    assert "\x1b" not in lines.render_rows(rows) and "\\u001b" in lines.render_rows(rows)
