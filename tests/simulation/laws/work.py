"""What people wanted is done: when nothing goes wrong and there is money and time, tasks succeed, and answers say so.

In: a Record. Out: complaints.
"""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from tests.simulation.laws.reading import body, instructed, is_calm, of, said, task_of, wants, wishes
from tests.simulation.laws.record import Record

from ..scenario import Wish

RICH_MICROS = 50_000
LONG_MS = 120_000
SHORT_OF_MONEY = ("tight", "small")
"""Tenants whose day is short."""


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    ends = {task: body(found[0]) for task, found in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    refusals = {task: body(found[0]) for task, found in said(record, "INBOX_GATEWAY", "mesh.task.rejected").items()}
    for wish, task in wishes(record):
        code = refusals.get(task, {}).get("code", "")
        if wish.expects and code != wish.expects:
            yield f"{wish.name} was to be refused as {wish.expects}, and was not: {code or ends.get(task)}"
        if not wish.expects and code not in _fair(wish):
            yield f"{wish.name} was refused: {refusals[task]}"
        if not is_calm(record) or task not in ends:
            continue
        end = ends[task]
        allowed = _allowed(record, wish)
        if end["status"] not in allowed:
            yield f"{wish.name} ended as {end['status']} though nothing went wrong: {end['failure']}"
        plain = end["status"] == "succeeded" and (end["result"] or {}).get("standing") == "ok"
        if plain and end["plan_versions"] == 1 and _hopeless(record, wish):
            yield f"{wish.name} succeeded though its result was rejected again and again"
        if end["status"] == "succeeded" and task in record.views:
            yield from _answer(record, wish, task, end)


def _fair(wish: Wish) -> tuple[str, ...]:
    """How what nothing is wrong with may be refused: a fork of what is gone, or that does again what has no key."""
    if wish.fork is None:
        return ("",)
    gone = ("fork_unknown", "fork_ancestor_gone", "fork_content_gone") if wish.name.startswith("late") else ()
    return ("", "fork_repeats_effect", *gone, *(("fork_not_ended", "fork_no_result") if wish.fork.soon else ()))


def _allowed(record: Record, wish: Wish) -> tuple[str, ...]:
    """How a task may end when nothing goes wrong."""
    if wish.cancel_after_s is not None or any(act.what == "early_cancel" for act in record.scenario.acts):
        return ("cancelled", "succeeded", "failed", "halted")
    if any("loop" in one for one in wants(wish)):
        return ("halted", "failed")  # laws/trips.py has more on it.
    if any(step.question for step in (wish.plan.steps if wish.plan else ())):
        return ("succeeded", "failed")  # As the person says.
    if wish.deadline_ms < LONG_MS:
        return ("succeeded", "failed", "halted")
    # What waits for money that others hold may give up waiting; a plan in place of a hopeless one may do without it.
    may_fail = wish.tenant in SHORT_OF_MONEY or _hopeless(record, wish)
    poor = wish.tenant in SHORT_OF_MONEY or wish.cost_usd_micros < RICH_MICROS
    return ("succeeded", *(("failed",) if may_fail else ()), *(("halted",) if poor else ()))


def _hopeless(record: Record, wish: Wish) -> bool:
    """Whether a judge rejects a step of it in every attempt."""
    texts = json.dumps([one.instruction for one in wish.plan.steps]) if wish.plan else wish.objective
    if wish.fork is not None:
        texts = json.dumps(
            [
                body(one)["plan"]
                for one in of(record, "INBOX_GATEWAY", "mesh.plan.adopted")
                if task_of(one.subject) == record.tasks[wish.name]
            ]
        )
    # Quotes are escaped once more in a plan that stands within an objective.
    judged = wish.check or wish.old_form
    return judged and '"reject": 9' in texts.replace("\\", "") and '"again"' not in wish.objective


# Answers


def _answer(record: Record, wish: Wish, task: str, end: dict[str, Any]) -> Iterator[str]:
    """The answer that people read holds what the last step's tools told, and cites each of its inputs."""
    plans = [
        body(one)["plan"] for one in of(record, "INBOX_GATEWAY", "mesh.plan.adopted") if task_of(one.subject) == task
    ]
    last, text = plans[-1]["steps"][-1], record.views[task]["answer"]
    if call := last.get("call"):
        told = _told(call["tool"], json.loads(call["arguments_json"]))
        if "$" not in call["arguments_json"] and told not in (text or ""):
            yield f"{wish.name}: the call of {call['tool']} told {told}, and the answer is {text!r}"
        return
    if last["kind"] == "noop":
        if end["result"]["summary"] != last["instruction"]:
            yield f"{wish.name}: the answer of a noop is not its instruction"
        return
    if not text:
        yield f"{wish.name} succeeded with nothing to read"
        return
    refused = {one["what"] for one in end["result"]["completeness"]["omissions"] if one.get("refused")}
    for tool, arguments in instructed(last["instruction"]).get("calls", []):
        told = _told(tool, arguments)
        if told and told not in text and f"call of {tool}" not in refused:
            yield f"{wish.name}: {tool} {arguments} told {told}, and the answer is {text[:200]!r}"
    results = {
        one["step_id"]: one["result"]
        for one in (
            body(each) for each in of(record, "INBOX_GATEWAY", "mesh.task.step_ended") if task_of(each.subject) == task
        )
        if one["outcome"] == "accepted"
    }
    for name in last["inputs"]:
        content = results.get(name, {}).get("content")
        if content and f"[#{content['sha256'][:12]}]" not in text:
            yield f"{wish.name}: the answer does not cite the result of {name}"


def _told(tool: str, arguments: dict[str, Any]) -> str:
    """What a tool must have said, worked out here."""
    match tool:
        case "calculate":
            left, sign, right = arguments["expression"].split()
            return str(int(left) * int(right) if sign == "*" else int(left) + int(right))
        case "date_add":
            return (date.fromisoformat(arguments["date"]) + timedelta(days=arguments["days"])).isoformat()
        case "counter_increment" | "counter_increment_unkeyed":
            return str(arguments["name"])
        case _:
            return ""
