"""Why a task waits, was refused or was halted, in plain words, with what to do.

In: the task's messages from the journal. Out: reasons, the weightiest first: how it ended, what stopped it, what was
found on the way, what it waits for now and since when.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from bulkhead.journal.history import JournalEntry, Replied, Requested, each_fact
from bulkhead.journal.pause_status import when_over
from bulkhead.journal.uncertain_writes import find_uncertain_writes
from bulkhead.journal.why.doubts import LOOK_FIRST, describe_write, resolve_command
from bulkhead.journal.why.ended import end_reasons, past_wait_reasons
from bulkhead.journal.why.reason import Reason
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead.text.amounts import format_duration, format_time
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import Alerted, Overran, Reserved, Settled, TaskHalted, Tripped
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued, LeaseRefused
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.retrieval import RetrievalRequested
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished, StepProposed
from bulkhead_contracts.task import (
    TaskCancelRequested,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
    TaskRequested,
    TaskStopped,
)
from bulkhead_contracts.verdict import VerdictReached

OpenCall = tuple[JournalEntry, str, bool, str]
"""Its request, what holds it back in words, whether it is paused, and the code of that."""
MAX_HELD_SHOWN = 4
STALLED_AFTER_MS = 30_000
AGENT_HINT = (
    "it goes on when the agent calls; it ends with its last answer when it is idle for long, or by "
    "`DELETE /v1/runs/TASK` at doors"
)
DOCTOR_HINT = "`bulkhead doctor` shows whether that service runs"
StepAttempt = tuple[str, int, int]
"""A step, its attempt, the version of its plan."""
OVERRAN_HINT = "it counts as a failure of what was called; `bulkhead breakers` shows whether it is still called"
TASK_ACCOUNTS = ("task:", "step:")
"""Accounts that end with their task: nobody can give them more then."""
RESUME_HINT = (
    "`bulkhead halts` and `bulkhead breakers` show the cause; after `bulkhead resume` or `bulkhead breakers reset` it "
    "continues"
)
APPROVAL_WANTED, DECIDE_HINT = (
    "approval_wanted",
    "a person decides: `bulkhead approvals` lists what waits, `grant ID` or `deny ID` ends it",
)
NEWER_HINT = "start the newer version again: the task continues by itself"
DOORS = "doors"
TOP_UP_HINT = "an operator does what it says: `topup` for the task's own limit, `limits set` for any other one"


def explain_task(entries: list[JournalEntry], task: str, now_unix_ms: int, newest_logic: int = 2**31) -> list[Reason]:
    """Reasons of one task, from its messages in journal order. newest_logic: the newest decision logic of this
    program."""
    facts = each_fact(entries)
    reasons = (
        end_reasons(facts, task)
        + _uncertain_write_reasons(facts)
        + _halt_reasons(facts)
        + past_wait_reasons(facts)
        + _trip_reasons(facts)
        + _alert_reasons(facts)
    )
    if any(isinstance(entry.body, TaskEnded | TaskRejected) for entry in facts):
        return reasons + _held_call_reasons(facts)
    reasons = _newer_logic_reasons(facts, newest_logic) + reasons
    waits = _queue_reasons(facts) or _open_wait_reasons(facts, now_unix_ms)
    if not waits:
        quiet_ms = now_unix_ms - max((entry.at_unix_ms for entry in facts), default=now_unix_ms)
        if quiet_ms >= STALLED_AFTER_MS:
            waits = [
                Reason(
                    "stalled",
                    f"no call is outstanding, and there was no message for {format_duration(quiet_ms)}",
                    f"`bulkhead doctor` looks at the mesh; `bulkhead cancel {task}` ends the task",
                )
            ]
        else:
            waits = [
                Reason("waits", "it runs: no call is outstanding at the moment", f"`bulkhead watch {task}` follows it")
            ]
    return reasons + waits


def _uncertain_write_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """Each write that may or may not have been done: the task's end tells of the first alone."""
    return [
        Reason(
            "uncertain",
            f"{describe_write(write.step_id, write.title, write.tool, write.arguments_json)}: {write.why}",
            f"key {write.key}: {LOOK_FIRST}" + (f"; `{resolve_command(write.write_id)}`" if write.write_id else ""),
            write.asked_unix_ms,
            "stop",
            (write.message,),
            write,
        )
        for write in find_uncertain_writes(entries)
    ]


def _halt_reasons(entries: list[JournalEntry]) -> list[Reason]:
    reasons = []
    is_cancelled = any(isinstance(entry.body, TaskEnded) and entry.body.status == "cancelled" for entry in entries)
    for entry in entries:
        body = entry.body
        if isinstance(body, TaskHalted):
            description, evidence = f"budget halted it ({body.code}): {body.reason}", (entry.cause or entry.id,)
            reasons.append(Reason("halted", description, "", entry.at_unix_ms, "stop", evidence))
        elif isinstance(body, TaskCancelRequested) and entry.sender == "gateway" and not is_cancelled:
            is_cancelled = True  # It is passed on, and asked again: once is enough.
            description = f"{entry.actor or 'somebody'} cancelled it: {body.reason or 'no reason was given'}"
            reasons.append(Reason.from_entry(entry, "halted", description, level="stop"))
    return reasons[:8]


def _trip_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """Stops before warnings; of several the oldest first."""
    reasons = [
        Reason(
            "tripped",
            f"{entry.body.detector}: {entry.body.what}" + (" (it was halted for this)" if entry.body.halted else ""),
            entry.body.hint,
            entry.body.tripped_unix_ms,
            entry.body.level,
            entry.body.evidence,
        )
        for entry in entries
        if isinstance(entry.body, Tripped)
    ]
    return sorted(reasons, key=lambda one: one.level != "stop")


def _alert_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """Limits that came near, one line each, and calls that used more than was reserved for them."""
    near = {entry.body.alert: entry for entry in entries if isinstance(entry.body, Alerted)}
    answered = any(isinstance(entry.body, TaskEnded) for entry in entries)
    alerts = [
        Reason(
            "alerted",
            entry.body.what,
            "" if answered and entry.body.scope.startswith(TASK_ACCOUNTS) else entry.body.hint,
            entry.body.alerted_unix_ms,
            "warn",
            (entry.id,),
        )
        for entry in near.values()
        if isinstance(entry.body, Alerted)
    ]
    overran = [
        Reason(
            "alerted",
            f"a call of {entry.body.resource} was charged in full: {entry.body.what}",
            OVERRAN_HINT,
            entry.body.overran_unix_ms,
            "warn",
            (entry.id,),
        )
        for entry in entries
        if isinstance(entry.body, Overran)
    ]
    return alerts + overran[:MAX_HELD_SHOWN]


def _held_call_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """Calls that a halt or a breaker held back to the end: the reason for a missed deadline."""
    held_calls: dict[str, JournalEntry] = {}
    for entry in entries:
        if isinstance(entry.body, CallDeferred) and entry.body.paused:
            held_calls[entry.body.call_id] = entry
        elif isinstance(entry.body, Replied | CallResumed):
            held_calls.pop(entry.body.call_id, None)
    return [
        Reason.from_entry(
            entry,
            "halted",
            f"a call of it was held back to the end: {when_over(entry.body.reason)}",
            {CEILING_CODE: "", APPROVAL_WANTED: DECIDE_HINT}.get(entry.body.code, RESUME_HINT),
            "stop",
        )
        for entry in held_calls.values()
        if isinstance(entry.body, CallDeferred)
    ][:MAX_HELD_SHOWN]


def _newer_logic_reasons(entries: list[JournalEntry], newest_logic: int) -> list[Reason]:
    """Messages that deciders of this version leave to a newer one; every other reason comes after that."""
    if ahead := [entry for entry in entries if entry.logic > newest_logic]:
        return [
            Reason(
                "waits",
                f"it runs under decision logic {ahead[-1].logic}, and this version has none above {newest_logic}: "
                "deciders of this version leave its messages unread, and the task, with its deadline, waits",
                NEWER_HINT,
                ahead[0].at_unix_ms,
                evidence=(ahead[-1].id,),
            )
        ]
    # Of an outsider what cannot be read is rejected at once; the journal is nobody's to hand back.
    last = {
        entry.receiver: entry
        for entry in entries
        if entry.later and entry.receiver != "journal" and not entry.sender.startswith("pub_")
    }
    return [
        Reason.from_entry(
            entry,
            "waits",
            f"{name} received {entry.type}, which this version cannot read: a {name} of this version leaves it unread, "
            "later messages of the task wait, and after an hour it is a dead letter",
            NEWER_HINT,
        )
        for name, entry in last.items()
        if not any(later_entry.sender == name for later_entry in entries[entries.index(entry) :])
    ]


def _queue_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """It has not begun: as many run as may."""
    places = [entry for entry in entries if isinstance(entry.body, TaskQueued | TaskReleased)]
    if not places or not isinstance(body := places[-1].body, TaskQueued):
        return []
    whose = "its tenant" if body.full == "tenant" else "the whole mesh"
    return [
        Reason.from_entry(
            places[-1],
            "waits",
            f"it is queued: {body.running} of {body.limit} tasks of {whose} are running, and {body.ahead} wait "
            f"before it; it expires at {format_time(body.until_unix_ms)}",
            "`bulkhead show TASK` shows its present position; an operator raises `quota.running` of the tenant in "
            "tenants.yaml",
        )
    ]


def _open_wait_reasons(entries: list[JournalEntry], now_unix_ms: int) -> list[Reason]:
    """Requests without an answer, the oldest first."""
    calls: dict[str, OpenCall] = {}
    steps: dict[StepAttempt, JournalEntry] = {}
    proposals: dict[StepAttempt, JournalEntry] = {}
    answered: set[object] = set()
    for entry in entries:
        body = entry.body
        if isinstance(body, Requested):
            calls[body.call_id] = (entry, "", False, "")
        elif isinstance(body, CallDeferred) and body.call_id in calls:
            put_off = f"; it was put off by {format_duration(body.after_ms)}: {body.reason}"
            if body.code == CEILING_CODE:
                put_off = f"; it is halted at a ceiling: {body.reason}"
            calls[body.call_id] = (calls[body.call_id][0], put_off, body.paused, body.code)
        elif isinstance(body, Replied):
            answered.add(body.call_id)
        elif isinstance(body, CallResumed) and entry.receiver == DOORS:
            calls.pop(body.call_id, None)  # Its agent was refused, and may call again or not.
        elif isinstance(body, StepAssigned):
            steps[body.step.id, body.attempt, body.plan_version] = entry
        elif isinstance(body, StepProposed):
            proposals[body.step.id, body.attempt, body.plan_version] = entry
        elif isinstance(body, StepFinished | VerdictReached):
            answered.add((body.step_id, body.attempt, body.plan_version))
    reasons = _open_call_reasons([call for name, call in calls.items() if name not in answered], now_unix_ms)
    busy = {getattr(call[0].body, "step_id", "") for name, call in calls.items() if name not in answered}
    for wait in find_open_waits(entries):
        busy.add(wait.step)
        description = f"step {wait.step} {wait.what}, for {_render_duration(wait.entry, now_unix_ms)}"
        reasons.append(Reason.from_entry(wait.entry, "waits", description, wait.todo))
    handed_out = {key: entry for key, entry in steps.items() if key not in answered and key[0] not in busy}
    for wait in handed_out_waits(handed_out, proposals):
        description = f"{wait.what}, for {_render_duration(wait.entry, now_unix_ms)}"
        reasons.append(Reason.from_entry(wait.entry, "waits", description, wait.todo))
    if not reasons and entries and isinstance(entries[-1].body, TaskRequested | TaskStopped | Reserved | Settled):
        description = f"{entries[-1].receiver} has it for {_render_duration(entries[-1], now_unix_ms)}"
        reasons.append(Reason.from_entry(entries[-1], "waits", description, DOCTOR_HINT))
    return sorted(reasons, key=lambda one: one.at_unix_ms)


def _open_call_reasons(open_: list[OpenCall], now_unix_ms: int) -> list[Reason]:
    """Open calls; of those of one step that the same thing holds back the newest, with their number."""
    alike: dict[object, list[OpenCall]] = {}
    for entry, put_off, paused, code in open_:
        step = getattr(entry.body, "step_id", "")
        key = (entry.receiver, step, code if code == CEILING_CODE else put_off) if paused else entry.id
        alike.setdefault(key, []).append((entry, put_off, paused, code))
    reasons = []
    for rows in alike.values():
        reason = _open_call_reason(*rows[-1], now_unix_ms)
        before = f"; so are {len(rows) - 1} calls before it" if len(rows) > 1 else ""
        reasons.append(replace(reason, what=reason.what + before))
    return reasons


def _open_call_reason(entry: JournalEntry, more: str, paused: bool, code: str, now_unix_ms: int) -> Reason:
    body = entry.body
    target = getattr(body, "tool", "") or ("a search" if isinstance(body, RetrievalRequested) else "the model")
    who = f"step {step}" if (step := getattr(body, "step_id", "")) else entry.sender
    todo = "`bulkhead doctor` shows whether that service runs, `bulkhead dead-letters` what it could not handle"
    if paused:
        todo = {CEILING_CODE: TOP_UP_HINT, APPROVAL_WANTED: DECIDE_HINT}.get(code, RESUME_HINT)
    description = f"{who} waits for {entry.receiver} ({target}) for {_render_duration(entry, now_unix_ms)}{more}"
    return Reason.from_entry(entry, "waits", description, todo)


def _render_duration(entry: JournalEntry, now_unix_ms: int) -> str:
    return format_duration(max(0, now_unix_ms - entry.at_unix_ms))


@dataclass(frozen=True, slots=True)
class StepWait:
    """step: who waits. what: for what, without since when."""

    step: str
    what: str
    todo: str
    entry: JournalEntry


def find_open_waits(entries: Iterable[JournalEntry]) -> Iterator[StepWait]:
    """Open waits of steps that are not over, in the order in which they began."""
    open_: dict[str, StepWait] = {}
    targets: dict[str, set[str]] = {}
    for entry in entries:
        body = entry.body
        if isinstance(body, AnswerRequested) and entry.sender == "worker":
            open_[body.ask_id] = _answer_wait(body, entry)
            targets[body.ask_id] = set(body.targets)
        elif isinstance(body, AnswerGiven) and entry.receiver == "worker":
            unanswered = targets.get(body.ask_id, set())
            unanswered.discard(body.target)
            wait = open_.get(body.ask_id)
            mode = wait.entry.body.mode if wait is not None and isinstance(wait.entry.body, AnswerRequested) else "all"
            if not unanswered or (mode == "any" and body.outcome == "answered"):
                open_.pop(body.ask_id, None)
        elif isinstance(body, LeaseQueued):
            open_[body.lease_id] = _lease_wait(body, entry)
        elif isinstance(body, LeaseGranted | LeaseRefused | LeaseEnded):
            open_.pop(body.lease_id, None)
        elif isinstance(body, WaitRefused):
            open_.pop(body.wait_id, None)
        elif isinstance(body, StepProposed | StepFinished | StepCancelRequested):
            answered = body.step.id if isinstance(body, StepProposed) else body.step_id
            open_ = {name: wait for name, wait in open_.items() if wait.step != answered}
    yield from open_.values()


def _answer_wait(body: AnswerRequested, entry: JournalEntry) -> StepWait:
    whom = (" or " if body.mode == "any" else " and ").join(f"step {target}" for target in body.targets)
    description = f"waits for an answer of {whom}" if body.question else f"waits for the result of {whom}"
    return StepWait(
        body.step_id, description, "it continues by itself when they have answered; budget ends a cycle of waits", entry
    )


def _lease_wait(body: LeaseQueued, entry: JournalEntry) -> StepWait:
    first = "" if body.place <= 1 else f", behind {body.place - 1} others"
    description = f"waits for {body.resource}, which step {body.holder_step} of task {body.holder_task} held{first}"
    todo = (
        f"it continues by itself when that step releases it or the lease ends; `bulkhead why {body.holder_task}` "
        "shows what the holder does"
    )
    return StepWait(body.step_id, description, todo, entry)


def handed_out_waits(
    steps: Mapping[StepAttempt, JournalEntry], proposals: Mapping[StepAttempt, JournalEntry]
) -> Iterator[StepWait]:
    """Steps in the hands of those who carry them out. proposals: those that were proposed, with the proposal."""
    for key, entry in steps.items():
        step, attempt, _ = key
        who = "the checker judges" if key in proposals else "the worker has"
        description, todo = f"{who} step {step}, attempt {attempt}", DOCTOR_HINT
        if isinstance(entry.body, StepAssigned) and entry.body.step.adopted:
            description, todo = f"an agent outside carries out step {step}, and no call of it is under way", AGENT_HINT
        elif isinstance(entry.body, StepAssigned) and entry.body.delegated is not None and key not in proposals:
            who = entry.body.delegated.name
            description = f"{who} has not answered step {step}, attempt {attempt}, which is delegated to it"
            todo = f"see whether {who} runs, and look at its log; `bulkhead timeline TASK` shows when it took the step"
        yield StepWait(step, description, todo, proposals.get(key, entry))
