"""Why a task waits, was refused or was halted, in plain words, with what to do.

In: the task's messages from the journal. Out: reasons, the weightiest first: how it ended, what stopped it, what was
found on the way, what it waits for now and since when.
"""

from dataclasses import replace

from bulkhead.amounts import clock, seconds
from bulkhead.journal.history import Entry, each_fact
from bulkhead.journal.why.doubts import LOOK_FIRST, named
from bulkhead.journal.why.ended import ends, waited
from bulkhead.journal.why.reason import Reason
from bulkhead.journal.why.waits import Handed, handed_out, waiting
from bulkhead.pause_status import when_over
from bulkhead.uncertain_writes import unknown
from bulkhead_contracts.budget import Alerted, Overran, Reserved, Settled, TaskHalted, Tripped
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.step import StepAssigned, StepFinished, StepProposed
from bulkhead_contracts.task import (
    TaskCancelRequested,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
    TaskRequested,
    TaskStopped,
)
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.verdict import VerdictReached

OpenCall = tuple[Entry, str, bool, str]
"""Its request, what holds it back in words, whether it is paused, and the code of that."""
Requested = ModelCallRequested | ToolCallRequested | RetrievalRequested
Replied = ModelCallReplied | ToolCallReplied | RetrievalReplied
MAX_HELD_SHOWN = 4
STALLED_AFTER_MS = 30_000
OVERRAN = "it counts as a failure of what was called; `bulkhead breakers` shows whether it is still called"
OWN = ("task:", "step:")
"""Accounts that end with their task: nobody can give them more then."""
LET_GO = (
    "`bulkhead halts` and `bulkhead breakers` show the cause; after `bulkhead resume` or `bulkhead breakers reset` it "
    "continues"
)
WANTED, DECIDE = (
    "approval_wanted",
    "a person decides: `bulkhead approvals` lists what waits, `grant ID` or `deny ID` ends it",
)
NEWER = "start the newer version again: the task continues by itself"
CEILING = "budget_exceeded"
DOORS = "doors"
TOP_UP = "an operator does what it says: `topup` for the task's own limit, `limits set` for any other one"


def explain(found: list[Entry], task: str, now_unix_ms: int, newest_logic: int = 2**31) -> list[Reason]:
    """Reasons of one task, from its messages in journal order. newest_logic: the newest decision logic of this
    program."""
    told = each_fact(found)
    reasons = ends(told, task) + _uncertain(told) + _halts(told) + waited(told) + _trips(told) + _alerts(told)
    if any(isinstance(one.body, TaskEnded | TaskRejected) for one in told):
        return reasons + _held_to_the_end(told)
    reasons = _newer(told, newest_logic) + reasons
    waits = _queued(told) or _waits(told, now_unix_ms)
    if not waits:
        quiet_ms = now_unix_ms - max((one.at_unix_ms for one in told), default=now_unix_ms)
        if quiet_ms >= STALLED_AFTER_MS:
            waits = [
                Reason(
                    "stalled",
                    f"no call is outstanding, and there was no message for {seconds(quiet_ms)}",
                    f"`bulkhead doctor` looks at the mesh; `bulkhead cancel {task}` ends the task",
                )
            ]
        else:
            waits = [
                Reason("waits", "it runs: no call is outstanding at the moment", f"`bulkhead watch {task}` follows it")
            ]
    return reasons + waits


def _uncertain(told: list[Entry]) -> list[Reason]:
    """Each write that may or may not have been done: the task's end tells of the first alone."""
    return [
        Reason(
            "uncertain",
            f"{named(one.step_id, one.title, one.tool, one.arguments_json)}: {one.why}",
            f"key {one.key}: {LOOK_FIRST}",
            one.asked_unix_ms,
            "stop",
            (one.message,),
            one,
        )
        for one in unknown(told)
    ]


def _halts(told: list[Entry]) -> list[Reason]:
    found = []
    asked = any(isinstance(one.body, TaskEnded) and one.body.status == "cancelled" for one in told)
    for entry in told:
        body = entry.body
        if isinstance(body, TaskHalted):
            found.append(
                Reason(
                    "halted",
                    f"budget halted it ({body.code}): {body.reason}",
                    "",
                    entry.at_unix_ms,
                    "stop",
                    (entry.cause or entry.id,),
                )
            )
        elif isinstance(body, TaskCancelRequested) and entry.sender == "gateway" and not asked:
            asked = True  # It is passed on, and asked again: once is enough.
            found.append(
                Reason(
                    "halted",
                    f"{entry.actor or 'somebody'} cancelled it: {body.reason or 'no reason was given'}",
                    "",
                    entry.at_unix_ms,
                    "stop",
                    (entry.id,),
                )
            )
    return found[:8]


def _trips(told: list[Entry]) -> list[Reason]:
    """Stops before warnings; of several the oldest first."""
    found = [
        Reason(
            "tripped",
            f"{one.body.detector}: {one.body.what}" + (" (it was halted for this)" if one.body.halted else ""),
            one.body.hint,
            one.body.tripped_unix_ms,
            one.body.level,
            one.body.evidence,
        )
        for one in told
        if isinstance(one.body, Tripped)
    ]
    return sorted(found, key=lambda one: one.level != "stop")


def _alerts(told: list[Entry]) -> list[Reason]:
    """Limits that came near, one line each, and calls that used more than was reserved for them."""
    near = {one.body.alert: one for one in told if isinstance(one.body, Alerted)}
    over = any(isinstance(one.body, TaskEnded) for one in told)
    found = [
        Reason(
            "alerted",
            one.body.what,
            "" if over and one.body.scope.startswith(OWN) else one.body.hint,
            one.body.alerted_unix_ms,
            "warn",
            (one.id,),
        )
        for one in near.values()
        if isinstance(one.body, Alerted)
    ]
    overran = [
        Reason(
            "alerted",
            f"a call of {one.body.resource} was charged in full: {one.body.what}",
            OVERRAN,
            one.body.overran_unix_ms,
            "warn",
            (one.id,),
        )
        for one in told
        if isinstance(one.body, Overran)
    ]
    return found + overran[:MAX_HELD_SHOWN]


def _held_to_the_end(told: list[Entry]) -> list[Reason]:
    """Calls that a halt or a breaker held back to the end: the reason for a missed deadline."""
    held: dict[str, Entry] = {}
    for entry in told:
        if isinstance(entry.body, CallDeferred) and entry.body.paused:
            held[entry.body.call_id] = entry
        elif isinstance(entry.body, Replied | CallResumed):
            held.pop(entry.body.call_id, None)
    return [
        Reason(
            "halted",
            f"a call of it was held back to the end: {when_over(entry.body.reason)}",
            {CEILING: "", WANTED: DECIDE}.get(entry.body.code, LET_GO),
            entry.at_unix_ms,
            "stop",
            (entry.id,),
        )
        for entry in held.values()
        if isinstance(entry.body, CallDeferred)
    ][:MAX_HELD_SHOWN]


def _newer(told: list[Entry], newest_logic: int) -> list[Reason]:
    """Messages that deciders of this version leave to a newer one; every other reason comes after that."""
    if ahead := [one for one in told if one.logic > newest_logic]:
        return [
            Reason(
                "waits",
                f"it runs under decision logic {ahead[-1].logic}, and this version has none above {newest_logic}: "
                "deciders of this version leave its messages unread, and the task, with its deadline, waits",
                NEWER,
                ahead[0].at_unix_ms,
                evidence=(ahead[-1].id,),
            )
        ]
    # Of an outsider what cannot be read is rejected at once; the journal is nobody's to hand back.
    last = {
        one.receiver: one
        for one in told
        if one.later and one.receiver != "journal" and not one.sender.startswith("pub_")
    }
    return [
        Reason(
            "waits",
            f"{name} received {one.type}, which this version cannot read: a {name} of this version leaves it unread, "
            "later messages of the task wait, and after an hour it is a dead letter",
            NEWER,
            one.at_unix_ms,
            evidence=(one.id,),
        )
        for name, one in last.items()
        if not any(other.sender == name for other in told[told.index(one) :])
    ]


def _queued(told: list[Entry]) -> list[Reason]:
    """It has not begun: as many run as may."""
    places = [one for one in told if isinstance(one.body, TaskQueued | TaskReleased)]
    if not places or not isinstance(body := places[-1].body, TaskQueued):
        return []
    whose = "its tenant" if body.full == "tenant" else "the whole mesh"
    return [
        Reason(
            "waits",
            f"it is queued: {body.running} of {body.limit} tasks of {whose} are running, and {body.ahead} wait "
            f"before it; it expires at {clock(body.until_unix_ms)}",
            "`bulkhead show TASK` shows its present position; an operator raises `quota.running` of the tenant in "
            "tenants.yaml",
            places[-1].at_unix_ms,
            evidence=(places[-1].id,),
        )
    ]


def _waits(told: list[Entry], now_unix_ms: int) -> list[Reason]:
    """Requests without an answer, the oldest first."""
    calls: dict[str, OpenCall] = {}
    steps: dict[Handed, Entry] = {}
    judged: dict[Handed, Entry] = {}
    over: set[object] = set()
    for entry in told:
        body = entry.body
        if isinstance(body, Requested):
            calls[body.call_id] = (entry, "", False, "")
        elif isinstance(body, CallDeferred) and body.call_id in calls:
            put_off = f"; it was put off by {seconds(body.after_ms)}: {body.reason}"
            if body.code == CEILING:
                put_off = f"; it is halted at a ceiling: {body.reason}"
            calls[body.call_id] = (calls[body.call_id][0], put_off, body.paused, body.code)
        elif isinstance(body, Replied):
            over.add(body.call_id)
        elif isinstance(body, CallResumed) and entry.receiver == DOORS:
            calls.pop(body.call_id, None)  # Its agent was refused, and may call again or not.
        elif isinstance(body, StepAssigned):
            steps[body.step.id, body.attempt, body.plan_version] = entry
        elif isinstance(body, StepProposed):
            judged[body.step.id, body.attempt, body.plan_version] = entry
        elif isinstance(body, StepFinished | VerdictReached):
            over.add((body.step_id, body.attempt, body.plan_version))
    found = _calls([one for name, one in calls.items() if name not in over], now_unix_ms)
    busy = {getattr(one[0].body, "step_id", "") for name, one in calls.items() if name not in over}
    for one in waiting(told):
        busy.add(one.step)
        found.append(
            Reason(
                "waits",
                f"step {one.step} {one.what}, for {_for(one.entry, now_unix_ms)}",
                one.todo,
                one.entry.at_unix_ms,
                evidence=(one.entry.id,),
            )
        )
    left = {key: entry for key, entry in steps.items() if key not in over and key[0] not in busy}
    for one in handed_out(left, judged):
        what = f"{one.what}, for {_for(one.entry, now_unix_ms)}"
        found.append(Reason("waits", what, one.todo, one.entry.at_unix_ms, evidence=(one.entry.id,)))
    if not found and told and isinstance(told[-1].body, TaskRequested | TaskStopped | Reserved | Settled):
        found.append(
            Reason(
                "waits",
                f"{told[-1].receiver} has it for {_for(told[-1], now_unix_ms)}",
                "`bulkhead doctor` shows whether that service runs",
                told[-1].at_unix_ms,
                evidence=(told[-1].id,),
            )
        )
    return sorted(found, key=lambda one: one.at_unix_ms)


def _calls(open_: list[OpenCall], now_unix_ms: int) -> list[Reason]:
    """Open calls; of those of one step that the same thing holds back the newest, with their number."""
    alike: dict[object, list[OpenCall]] = {}
    for entry, more, paused, code in open_:
        step = getattr(entry.body, "step_id", "")
        key = (entry.receiver, step, code if code == CEILING else more) if paused else entry.id
        alike.setdefault(key, []).append((entry, more, paused, code))
    found = []
    for rows in alike.values():
        reason = _call(*rows[-1], now_unix_ms)
        before = f"; so are {len(rows) - 1} calls before it" if len(rows) > 1 else ""
        found.append(replace(reason, what=reason.what + before))
    return found


def _call(entry: Entry, more: str, paused: bool, code: str, now_unix_ms: int) -> Reason:
    body = entry.body
    what = getattr(body, "tool", "") or ("a search" if isinstance(body, RetrievalRequested) else "the model")
    who = f"step {step}" if (step := getattr(body, "step_id", "")) else entry.sender
    todo = "`bulkhead doctor` shows whether that service runs, `bulkhead dead-letters` what it could not handle"
    if paused:
        todo = {CEILING: TOP_UP, WANTED: DECIDE}.get(code, LET_GO)
    return Reason(
        "waits",
        f"{who} waits for {entry.receiver} ({what}) for {_for(entry, now_unix_ms)}{more}",
        todo,
        entry.at_unix_ms,
        evidence=(entry.id,),
    )


def _for(entry: Entry, now_unix_ms: int) -> str:
    return seconds(max(0, now_unix_ms - entry.at_unix_ms))
