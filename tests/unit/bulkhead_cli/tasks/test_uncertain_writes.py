"""Writes of which nobody knows whether they were done: each is told, with what a person needs to look after it."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import jwt
import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.journal import uncertain_writes
from bulkhead.journal.history import build_entries, each_fact
from bulkhead.journal.why import doubts
from bulkhead.journal.why.reasons import explain_task
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_cli.replay.replay import replay_history
from bulkhead_cli.screen import SafeConsole
from bulkhead_cli.tasks import uncertain_writes as tasks_uncertain_writes
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded, TaskRequested
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from tests.paths import HISTORIES

SIBLINGS = 8


def recorded(name: str = "uncertain_write") -> TaskHistory:
    return load_history(next(iter(sorted(HISTORIES.glob(f"{name}.*")))))


def messages(name: str = "uncertain_write") -> list[StoredMessage]:
    return list(recorded(name).messages)


def again(stored: StoredMessage, body, number: int, **headers: str) -> StoredMessage:
    head = {**stored.headers, "ce-id": f"{number:032x}", "ce-type": body.ce_type(), **headers}
    return StoredMessage(stored.subject, head, body.encode(), stored.sequence, stored.time_unix_ms)


def of(found: list[StoredMessage], kind) -> StoredMessage:
    return next(one for one in found if one.ce_type == kind.ce_type())


def siblings(*, answered: bool = True) -> list[StoredMessage]:
    """The recorded task, as if that write had stood in eight parallel steps, each with arguments of its own."""
    whole = messages()
    asked, replied = of(whole, ToolCallRequested), of(whole, ToolCallReplied)
    more = []
    for number in range(1, SIBLINGS):
        mine = {"call_id": f"c{number}", "step_id": f"s{number}"}
        arguments = json.dumps({"amount_cents": 100 * number})
        call = ToolCallRequested.model_validate_json(asked.body)
        more.append(again(asked, call.model_copy(update={**mine, "arguments_json": arguments}), 2 * number))
        if answered:
            reply = ToolCallReplied.model_validate_json(replied.body).model_copy(update=mine)
            more.append(again(replied, reply, 2 * number + 1))
    return whole[: whole.index(replied)] + more + whole[whole.index(replied) :]


def unknown(found: list[StoredMessage]) -> list[uncertain_writes.Write]:
    return uncertain_writes.find_uncertain_writes(each_fact(build_entries(found)))


@pytest.mark.parametrize(("answered", "outcome"), [(True, "uncertain"), (False, "unanswered")])
def test_why_tells_each_of_eight_parallel_writes_with_step_tool_arguments_and_key(answered, outcome) -> None:
    whole = siblings(answered=answered)
    task, tenant = whole[0].task, whole[0].tenant
    told = [one for one in explain_task(build_entries(whole), task, 0) if one.kind == "uncertain"]
    assert len(told) == SIBLINGS and len({one.write.key for one in told}) == SIBLINGS
    third = next(one for one in told if one.write.step_id == "s3")
    assert third.write.outcome == outcome and third.write.tool == "counter_increment_unkeyed"
    assert 'step s3: counter_increment_unkeyed {"amount_cents": 300}' in third.what
    assert third.write.key == f"{tenant}.{task}.c3" and third.write.key in third.todo
    assert third.at_unix_ms == third.write.asked_unix_ms > 0 and third.evidence


def test_what_was_put_off_had_not_begun_and_a_task_that_runs_may_still_be_answered() -> None:
    whole = siblings(answered=False)
    held = CallDeferred(call_id="c3", after_ms=500, reason="halted", paused=True)
    before_end = whole.index(of(whole, TaskEnded))
    put_off = [*whole[:before_end], again(of(whole, ToolCallReplied), held, 99), *whole[before_end:]]
    assert "s3" not in {one.step_id for one in unknown(put_off)} and len(unknown(put_off)) == SIBLINGS - 1
    running = [one for one in whole if one.ce_type != TaskEnded.ce_type()]
    assert {one.outcome for one in unknown(running)} == {"uncertain"}


def test_no_other_history_has_a_write_in_doubt_and_a_fork_sends_the_key_of_its_origin() -> None:
    for name in ("keyed_write", "answered", "several_tools_in_one_turn"):
        assert unknown(messages(name)) == []
    parent = jwt.encode({"grant": {"kind": "task", "origin": "first"}}, "k" * 32)
    token = jwt.encode({"grant": {"kind": "step"}, "parent": parent}, "k" * 32)
    whole = messages()
    asked = of(whole, ToolCallRequested)
    forked = again(asked, ToolCallRequested.model_validate_json(asked.body), 7, **{"bulkhead-grant": token})
    (one,) = unknown([forked if found is asked else found for found in whole])
    assert one.key == f"demo.first.{ToolCallRequested.model_validate_json(asked.body).call_id}"


def shown(document) -> str:
    stream = io.StringIO()
    tasks_uncertain_writes.print_uncertain_writes(
        SafeConsole(file=stream, soft_wrap=True, highlight=False, width=500), document
    )
    return stream.getvalue()


def test_show_lists_them_or_says_where_they_are_listed() -> None:
    document = {
        "task_id": "t1",
        "status": "failed",
        "failure": Failure(code="uncertain_effect", message="may have been paid").model_dump(),
    }
    found = unknown(siblings())
    told = {**document, "uncertain_writes": [asdict(one) for one in found]}
    text = shown(told)
    assert f"{SIBLINGS} writes may or may not have been done" in text and "bulkhead why" not in text
    assert all(one.key in text and f"step {one.step_id}" in text for one in found)
    beyond = shown({**told, "more_uncertain_writes": 2})
    assert f"{SIBLINGS + 2} writes may or may not" in beyond and "`bulkhead why t1`" in beyond
    assert "`bulkhead why t1`" in shown({**document, "uncertain_writes": None}), "they could not be told"
    assert "`bulkhead why t1`" in shown(document), "the gateway is of before"
    assert shown({**document, "failure": None, "uncertain_writes": None}) == ""
    assert shown({**document, "uncertain_writes": []}) == ""


def test_long_arguments_are_cut_for_people_alone() -> None:
    long = doubts.describe_write("s", "", "pay", "{" + "x" * 9_000 + "}")
    assert len(long) < 500 and long.endswith("…")


def forged(found: list[StoredMessage], body, number: int, **headers: str) -> StoredMessage:
    """What an outside publisher of the same tenant says into the only inbox that it reaches."""
    one = again(of(found, TaskRequested), body, number, **headers)
    return replace(one, subject=".".join(["mesh", "pub_demo", "gateway", *one.subject.split(".")[3:]]))


async def test_an_outsider_can_forge_no_outcome_no_end_and_no_repeat() -> None:
    whole = messages()
    [write] = unknown(whole)
    replied, ended = of(whole, ToolCallReplied), of(whole, TaskEnded)
    done = ToolCallReplied.model_validate_json(replied.body).model_copy(update={"outcome": "succeeded"})
    assert unknown([*whole, forged(whole, done, 1)]) == [write], "it was done, says somebody who cannot know"
    hides = forged(whole, TaskCancelRequested(reason="x"), 2, **{"ce-id": replied.ce_id})
    assert unknown([hides, *whole]) == [write], "an id that somebody else was to use"
    running = whole[: whole.index(ended)]
    over = forged(whole, TaskEnded.model_validate_json(ended.body), 3)
    assert "ended" not in {one.kind for one in explain_task(build_entries([*running, over]), "t", 0)}
    tenant, task = over.subject.split(".")[4:6]
    assert TaskHistory(tenant, task, tuple(whole)).ended and not TaskHistory(tenant, task, (*running, over)).ended
    texts = recorded().contents
    for found in (running, [*running, over]):
        assert not (await replay_history(TaskHistory(tenant, task, tuple(found), texts))).ended
    assert (await replay_history(TaskHistory(tenant, task, tuple(whole), texts))).ended
    told = build_entries([*running, over])[-1]
    assert told.body is None and "pub_demo may not say this to gateway" in told.problem


@pytest.mark.parametrize("file", sorted(HISTORIES.iterdir()), ids=lambda file: file.name.partition(".")[0])
def test_what_services_say_of_a_task_is_taken(file: Path) -> None:
    assert not [one.problem for one in build_entries(load_history(file).messages) if "may not say" in one.problem]
