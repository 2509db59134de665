"""`why` for a task that has ended: how it ended and by whom, what its answer lacks, where it had waited.

In: the task's facts in journal order. Out: reasons.
"""

import re

from bulkhead.journal.history import JournalEntry
from bulkhead.journal.pause_status import reword_failure, when_over
from bulkhead.journal.why.doubts import MAX_SHOWN_CHARS, answer_warnings
from bulkhead.journal.why.reason import Reason
from bulkhead.text.amounts import format_duration, format_time
from bulkhead_contracts.approval import ApprovalEnded
from bulkhead_contracts.control import Switched
from bulkhead_contracts.plan import Plan, PlanAdopted
from bulkhead_contracts.result import Failure, Result
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded, TaskPaused, TaskRejected
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_WAITS_TOLD = 8
MAX_WRITES_TOLD = 8
APPROVAL_CODES = frozenset({"approval_denied", "approval_expired"})
ENDING_WORDS = {"cancelled": "it was cancelled", "halted": "it was halted"}
ADVICE_BEGINS = re.compile(r" (An operator|Who runs the mesh|It goes on after `bulkhead approvals) ")
"""Where the words of a ceiling turn to what was to be done; when it is over, they are of no use."""


def end_reasons(entries: list[JournalEntry], task: str) -> list[Reason]:
    """Reasons that tell how it ended; of an answer that is no whole one, each thing that it lacks."""
    reasons, told_endings = [], list[tuple[str, Failure | None]]()
    for entry in entries:
        body = entry.body
        if isinstance(body, TaskRejected):
            reasons.append(Reason.from_entry(entry, "rejected", f"the gateway refused it: {body.message}", body.hint))
        elif isinstance(body, TaskEnded) and (ending := (body.status, body.failure)) not in told_endings:
            told_endings.append(ending)  # The planner tells the gateway, and doors too.
            reasons.append(_end_reason(entries, entry, body, task))
            if body.result is not None:
                reasons += _doubt_reasons(entries, entry, body.result, task)
    return reasons


def _end_reason(entries: list[JournalEntry], entry: JournalEntry, body: TaskEnded, task: str) -> Reason:
    ending = ENDING_WORDS.get(body.status, f"it has {body.status}")
    failure = reword_failure(body.failure) if body.failure else None
    cancellation = next((entry for entry in entries if isinstance(entry.body, TaskCancelRequested)), None)
    if body.status == "cancelled" and cancellation is not None and isinstance(cancellation.body, TaskCancelRequested):
        who = f" by {cancellation.actor}" if cancellation.actor else ""
        stated = cancellation.body.reason
        reason = stated if stated not in ("", f"cancelled{who}") else "no reason was given"
        request_phrase = f"{who}, who asked for it at" if who else ", asked for at"
        description = f"{ending}{request_phrase} {format_time(cancellation.at_unix_ms)}: {reason}"
        return Reason("ended", description, at_unix_ms=entry.at_unix_ms, evidence=(cancellation.id, entry.id))
    reason = f": {failure.message} ({failure.code})" if failure else ""
    return Reason.from_entry(entry, "ended", f"{ending}{reason}", failure.hint if failure else "")


def past_wait_reasons(entries: list[JournalEntry]) -> list[Reason]:
    """Waits of the task at a halt or a limit: duration, reason, and the author of the resumption."""
    reasons, since, resumption = [], None, ""
    for entry in entries:
        body = entry.body
        if isinstance(body, TaskPaused) and body.active:
            since, resumption = since or entry, "" if since is None else resumption
        elif isinstance(body, Switched) and not body.halt.active:
            halt = body.halt
            resumption = halt.reason if halt.by == "budget" else f"{halt.by} resumed it: {halt.reason}"
        elif isinstance(body, ApprovalEnded):
            resumption = f"{body.outcome} by {body.person}: {body.reason}" if body.person else body.reason
        elif isinstance(body, TaskPaused) and since is not None and isinstance(since.body, TaskPaused):
            reason = when_over(ADVICE_BEGINS.split(since.body.reason)[0]).rstrip(". ")
            lasted = max(0, entry.at_unix_ms - since.at_unix_ms)
            went_on = f"it continued: {resumption}" if resumption else "it continued"
            description = f"it waited for {format_duration(lasted)}: {reason}; {went_on}"
            evidence = since.id, entry.id
            reasons.append(Reason("waited", description, at_unix_ms=since.at_unix_ms, evidence=evidence))
            since, resumption = None, ""
    return reasons[:MAX_WAITS_TOLD]


def _doubt_reasons(entries: list[JournalEntry], end: JournalEntry, result: Result, task: str) -> list[Reason]:
    lines = answer_warnings({"result": result.model_dump(mode="json")})
    plan = next((entry.body.plan for entry in reversed(entries) if isinstance(entry.body, PlanAdopted)), None)
    calls = {entry.body.call_id: entry.body for entry in entries if isinstance(entry.body, ToolCallRequested)}
    missing = {omission.what for omission in result.completeness.omissions}
    last: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry.body, ToolCallReplied) and entry.body.call_id in calls:
            key = (entry.body.step_id, calls[entry.body.call_id].tool)
            last.pop(key, None)  # It worked after all, or failed again.
            if entry.body.outcome in ("failed", "refused") and missing & {f"tool {key[1]}", f"call of {key[1]}"}:
                last[key] = number
    details = [_missing_tool_reason(entries, number, tool, plan, calls, task) for (_, tool), number in last.items()]
    explained = tuple(
        f"incomplete: {opening}" for _, tool in last for opening in (f"tool {tool} failed", f"call of {tool} ")
    )
    todo = f"`bulkhead timeline {task}` shows the calls"
    return [
        Reason.from_entry(end, "doubtful", f"its answer is {line}", todo, "warn")
        for line in lines
        if not (details and line.startswith(explained))
    ] + details


def _missing_tool_reason(
    entries: list[JournalEntry],
    number: int,
    tool: str,
    plan: Plan | None,
    calls: dict[str, ToolCallRequested],
    task: str,
) -> Reason:
    """A step that went on without a tool, what was built on it, and what was written then."""
    entry, reply = entries[number], entries[number].body
    assert isinstance(reply, ToolCallReplied)
    later = built_on(plan, reply.step_id)
    writes = [
        _describe_call(calls[entry.body.call_id])
        for entry in entries[number:]
        if isinstance(entry.body, ToolCallReplied)
        and (entry.body.effect, entry.body.outcome) == ("write", "succeeded")
        and entry.body.call_id in calls
        and entry.body.step_id in (reply.step_id, *later)
    ]
    reason = reply.failure.message if reply.failure else reply.outcome
    description = f"step {reply.step_id} continued without {tool}: {reason}"
    description += f"; built on it: step {', step '.join(later)}" if later else "; no other step was built on it"
    overflow = f" and {len(writes) - MAX_WRITES_TOLD} more" if len(writes) > MAX_WRITES_TOLD else ""
    shown_writes = ", ".join(writes[:MAX_WRITES_TOLD]) + overflow
    description += f"; written after it, and not undone: {shown_writes}" if writes else "; nothing was written after it"
    check = "check whether what was written is right; " if writes else ""
    advice = f"when {tool} works again, "
    if reply.failure is not None and reply.failure.code in APPROVAL_CODES:
        advice = f"`bulkhead approvals --state all --task {task}` shows who decided; if it is to be done after all, "
    todo = (
        f"{check}{advice}`bulkhead replay {task} --from-step {reply.step_id} --watch` runs that step and those that "
        "depend on it again (--dry-run shows what that repeats)"
    )
    return Reason.from_entry(entry, "doubtful", description, todo, "warn")


def built_on(plan: Plan | None, step: str) -> list[str]:
    """The steps that depend on one, directly or not, in the plan's order."""
    dependents = {step}
    steps = plan.steps if plan is not None else ()
    for _ in steps:
        dependents |= {later_step.id for later_step in steps if dependents & set(later_step.inputs)}
    return [later_step.id for later_step in steps if later_step.id in dependents and later_step.id != step]


def _describe_call(body: ToolCallRequested) -> str:
    text = " ".join(body.arguments_json.split())
    text = text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
    return f"{body.tool} {text} (step {body.step_id})"
