"""The story of a recorded task: plan, calls, sources, costs, what went wrong, and why."""

import json
import time
from dataclasses import replace

import pytest

from bulkhead.journal.history import JournalEntry, build_entries
from bulkhead.journal.story.fold import contents_to_quote, fold_story
from bulkhead.journal.story.model import Happened, Story, as_json
from bulkhead.journal.story.redact import without_content
from bulkhead.journal.story.sources import sentences_with_sources
from bulkhead.journal.story.text import render_story
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from tests.paths import HISTORIES


def history(name: str) -> TaskHistory:
    return load_history(next(iter(sorted(HISTORIES.glob(f"{name}.*")))))


def recorded(name: str) -> tuple[list[JournalEntry], dict[str, str]]:
    told = history(name)
    found = build_entries(told.messages)
    return found, {ref.sha256: said for ref in contents_to_quote(found) if (said := told.text_of(ref)) is not None}


def story(name: str) -> Story:
    found, texts = recorded(name)
    return fold_story(found, found[0].task, 0, texts)


def test_an_answered_task_tells_its_plan_its_calls_and_what_each_sentence_rests_on():
    told = story("answered")
    (plan,) = told.plans
    assert (plan.origin, plan.by, plan.steps) == (
        "drafted",
        "offline-rules-1 (prompt planner.draft@2)",
        ("s1", "s2", "s3", "s4", "s5"),
    )
    steps = {step.step_id: step for step in told.steps}
    (dates,) = [call for call in steps["s3"].calls if call.kind == "tool"]
    assert (dates.name, dates.outcome, dates.result) == (
        "date_difference",
        "succeeded",
        "2025-05-26 to 2025-06-09 = 14 days",
    )
    assert json.loads(dates.arguments) == {"start": "2025-05-26", "end": "2025-06-09"}
    searches = [call for call in steps["s1"].calls if call.kind == "search"]
    assert len(searches) == 3 and all(call.found for call in searches) and steps["s1"].seen == 7
    assert {source.kind for source in steps["s1"].cites} == {"document"} and steps["s4"].inputs == ("s1", "s2", "s3")
    first = told.answer[0]
    calculated, *documents = first.sources
    assert "385.68" in first.text and (calculated.kind, calculated.name, calculated.step_id) == (
        "tool_result",
        "calculate",
        "s4",
    )
    assert {source.kind for source in documents} == {"document"}
    spent = sum(step.usage.cost_usd_micros for step in told.steps) + sum(
        call.usage.cost_usd_micros for call in told.planning
    )
    assert told.usage.cost_usd_micros == spent == 5_274 and told.whole_cost


def test_an_ordinary_task_is_told_on_one_screen_and_whole_when_asked_for():
    told = story("answered")
    short, whole = render_story(told).splitlines(), render_story(told, whole=True).splitlines()
    assert len(short) <= 45 < len(whole)
    assert "rests on sheet-41.md, characters 828–1448" in "\n".join(short)
    assert sum("asked a model" in line for line in whole) == len([call for call in told.calls if call.kind == "model"])


@pytest.mark.parametrize(
    ("name", "origin", "by"),
    [
        ("given_plan", "submitted", "ann"),
        ("fork", "fork", "task tdkgepxmjuq73fuovb7l4qxzxw, which this one forks"),
        ("draft_rejected", "drafted", "scripted-1 (prompt planner.revise@2)"),
    ],
)
def test_where_a_plan_came_from(name, origin, by):
    plan = story(name).plans[0]
    assert (plan.origin, plan.by) == (origin, by) and plan.drafts_refused == (name == "draft_rejected")


def test_a_fork_tells_which_steps_it_took_over():
    assert [(step.step_id, step.given) for step in story("fork").steps] == [("a", True), ("b", True), ("c", False)]


def test_a_failed_task_tells_what_led_to_it_with_the_messages_that_show_it():
    told = story("failed_dependency")
    ids = {entry.id for entry in recorded("failed_dependency")[0]}
    assert told.cause[0].what.startswith("step a (A) failed 3 times") and told.cause[1].step_id == "a"
    assert all(row.evidence and set(row.evidence) <= ids for row in told.cause)
    assert "because" in render_story(told) and f"[message {told.cause[0].evidence[0]}]" in render_story(told)


def test_a_rejected_attempt_and_a_degraded_result_are_told():
    told = story("fork")
    kinds = {(row.kind, row.step_id) for row in told.happened}
    assert {("refused", "c"), ("degraded", "c")} <= kinds and told.steps[2].standing == "degraded"
    assert told.steps[2].refused[0].startswith("attempt 1: no source says this")


def test_retries_and_calls_that_were_put_off_are_told():
    retried = [row for row in story("provider_errors").happened if row.kind == "retried"]
    assert "3 attempts; provider_error, provider_error, provider_error" in retried[0].what
    (put_off,) = [row for row in story("put_off").happened if row.kind == "put_off"]
    assert "budget does not answer" in put_off.what


@pytest.mark.parametrize(("name", "effect"), [("keyed_write", "done"), ("uncertain_write", "unknown")])
def test_what_a_write_did_is_told_as_far_as_it_is_known(name, effect):
    told = story(name)
    (write,) = told.write_calls
    assert write.effect == effect
    assert {"done": "it was done", "unknown": "nobody knows whether it was done"}[effect] in render_story(told)


def test_a_write_that_was_refused_or_only_put_off_was_not_done():
    found, texts = recorded("keyed_write")
    ask = next(one for one in found if isinstance(one.body, ToolCallRequested))
    reply = next(one for one in found if isinstance(one.body, ToolCallReplied))
    assert isinstance(reply.body, ToolCallReplied)
    refused = [*found]
    refused[found.index(reply)] = replace(reply, body=reply.body.model_copy(update={"outcome": "refused"}))
    put_off = [*found]
    later = CallDeferred(call_id=reply.body.call_id, step_id="a", after_ms=5, reason="busy")
    put_off[found.index(reply)] = replace(reply, body=later, type=later.ce_type())
    for changed in (refused, put_off):
        (write,) = fold_story(changed, ask.task, 0, texts).write_calls
        assert write.effect == "not_done"


def test_what_a_model_said_beside_its_calls_is_marked_as_its_own_word():
    found, _ = recorded("several_tools_in_one_turn")
    at, reply = next(
        (at, one) for at, one in enumerate(found) if isinstance(one.body, ModelCallReplied) and one.body.tool_calls
    )
    said = next(one.body.content for one in found if isinstance(one.body, ModelCallReplied) and one.body.content)
    found[at] = replace(reply, body=reply.body.model_copy(update={"content": said}))
    told = fold_story(found, reply.task, 0, {said.sha256: "I need the fee first."})
    calls = [call for call in told.calls if call.kind != "model"]
    assert {call.why for call in calls} == {"I need the fee first."}
    assert "the model says why: “I need the fee first.”" in render_story(told)


def test_who_may_not_read_content_sees_what_happened_and_no_texts():
    told = without_content(story("answered"))
    said = json.dumps(as_json(told))
    for secret in ("Lindqvist bought", "385.68 USD", "2025-05-26 to", "Beacon ticket is", "round(min("):
        assert secret not in said, secret
    shown = render_story(told)
    assert "date_difference" in shown and "sheet-41.md" in shown and "texts are left out" in shown
    rejected = without_content(story("fork"))
    assert rejected.steps[2].refused == ("attempt 1",), "the checker's reasons quote what it did not accept"
    assert not any(":" in row.what for row in rejected.happened if row.kind == "refused")


def test_a_page_of_blanks_is_read_as_fast_as_any_other():
    began = time.process_time()
    assert sentences_with_sources("a" + " " * 30_000 + "b.", {})
    assert time.process_time() - began < 1.0


def test_a_task_that_goes_on_tells_first_what_it_waits_for():
    found, texts = recorded("answered")
    at = next(number for number, one in enumerate(found) if isinstance(one.body, ToolCallRequested))
    told = fold_story(found[: at + 1], found[0].task, found[at].at_unix_ms + 5_000, texts)
    lines = render_story(told).splitlines()
    assert told.status == "running" and lines.index("now") < next(n for n, one in enumerate(lines) if "plan 1" in one)
    assert any(one.startswith("  waits: step s3 waits for tool_executor (date_difference)") for one in lines), lines


def test_hostile_text_commands_no_screen():
    told = replace(story("answered"), objective="\x1b[2J\u202egnp.exe\r\nforged line\u2066")
    shown = render_story(told)
    assert not any(char in shown for char in "\x1b\u202e\u2066\r") and "\\u001b" in shown
    assert not any(line.startswith("forged line") for line in shown.splitlines())
    led = Happened(0, "failed", "the tool said: boom\nforged line")
    assert not any(line.startswith("forged line") for line in render_story(replace(told, cause=(led,))).splitlines())


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*")), ids=lambda path: path.name.partition(".")[0])
def test_every_recorded_task_has_a_story_from_any_point_on(path):
    """Also of a task that goes on, and of one whose texts are gone."""
    found = build_entries(load_history(path).messages)
    for end in range(1, len(found) + 1, max(1, len(found) // 5)):
        told = fold_story(found[:end], found[0].task, 0, {})
        assert render_story(told) and render_story(told, whole=True) and as_json(without_content(told))
    assert fold_story(found, found[0].task, 0, {}).status in ("succeeded", "failed", "cancelled", "halted", "rejected")
