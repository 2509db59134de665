"""`why` for a task that has ended: how it ended and by whom, what its answer lacks, where it had waited.

In: the task's facts in journal order. Out: reasons.
"""

import re

from bulkhead.amounts import clock, seconds
from bulkhead.journal.history import Entry
from bulkhead.journal.why.doubts import MAX_SHOWN_CHARS, warnings
from bulkhead.journal.why.reason import Reason
from bulkhead.pause_status import failed, when_over
from bulkhead_contracts.approval import ApprovalEnded
from bulkhead_contracts.control import Switched
from bulkhead_contracts.plan import Plan, PlanAdopted
from bulkhead_contracts.result import Failure, Result
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded, TaskPaused, TaskRejected
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_WAITS_TOLD = 8
MAX_WRITES_TOLD = 8
ASKED = frozenset({"approval_denied", "approval_expired"})
HOW = {"cancelled": "it was cancelled", "halted": "it was halted"}
MORE = re.compile(r" (An operator|Who runs the mesh|It goes on after `bulkhead approvals) ")
"""Where the words of a ceiling turn to what was to be done; when it is over, they are of no use."""


def ends(told: list[Entry], task: str) -> list[Reason]:
    """How it ended; of an answer that is no whole one, each thing that it lacks."""
    found, hows = [], list[tuple[str, Failure | None]]()
    for entry in told:
        body = entry.body
        if isinstance(body, TaskRejected):
            found.append(
                Reason(
                    "rejected",
                    f"the gateway refused it: {body.message}",
                    body.hint,
                    entry.at_unix_ms,
                    evidence=(entry.id,),
                )
            )
        elif isinstance(body, TaskEnded) and (how := (body.status, body.failure)) not in hows:
            hows.append(how)  # The planner tells the gateway, and doors too.
            found.append(_end(told, entry, body, task))
            if body.result is not None:
                found += _doubts(told, entry, body.result, task)
    return found


def _end(told: list[Entry], entry: Entry, body: TaskEnded, task: str) -> Reason:
    how = HOW.get(body.status, f"it has {body.status}")
    failure = failed(body.failure) if body.failure else None
    asked = next((one for one in told if isinstance(one.body, TaskCancelRequested)), None)
    if body.status == "cancelled" and asked is not None and isinstance(asked.body, TaskCancelRequested):
        who = f" by {asked.actor}" if asked.actor else ""
        why = asked.body.reason if asked.body.reason not in ("", f"cancelled{who}") else "no reason was given"
        return Reason(
            "ended",
            f"{how}{who}, who asked for it at {clock(asked.at_unix_ms)}: {why}"
            if who
            else f"{how}, asked for at {clock(asked.at_unix_ms)}: {why}",
            "",
            entry.at_unix_ms,
            evidence=(asked.id, entry.id),
        )
    why = f": {failure.message} ({failure.code})" if failure else ""
    return Reason("ended", f"{how}{why}", failure.hint if failure else "", entry.at_unix_ms, evidence=(entry.id,))


def waited(told: list[Entry]) -> list[Reason]:
    """Waits of the task at a halt or a limit: duration, reason, and the author of the resumption."""
    found, since, let_go = [], None, ""
    for entry in told:
        body = entry.body
        if isinstance(body, TaskPaused) and body.active:
            since, let_go = since or entry, "" if since is None else let_go
        elif isinstance(body, Switched) and not body.halt.active:
            let_go = _who(body)
        elif isinstance(body, ApprovalEnded):
            let_go = f"{body.outcome} by {body.person}: {body.reason}" if body.person else body.reason
        elif isinstance(body, TaskPaused) and since is not None and isinstance(since.body, TaskPaused):
            why = when_over(MORE.split(since.body.reason)[0]).rstrip(". ")
            lasted = max(0, entry.at_unix_ms - since.at_unix_ms)
            went_on = f"it continued: {let_go}" if let_go else "it continued"
            found.append(
                Reason(
                    "waited",
                    f"it waited for {seconds(lasted)}: {why}; {went_on}",
                    "",
                    since.at_unix_ms,
                    evidence=(since.id, entry.id),
                )
            )
            since, let_go = None, ""
    return found[:MAX_WAITS_TOLD]


def _who(body: Switched) -> str:
    halt = body.halt
    return halt.reason if halt.by == "budget" else f"{halt.by} resumed it: {halt.reason}"


def _doubts(told: list[Entry], end: Entry, result: Result, task: str) -> list[Reason]:
    lines = warnings({"result": result.model_dump(mode="json")})
    plan = next((one.body.plan for one in reversed(told) if isinstance(one.body, PlanAdopted)), None)
    asked = {one.body.call_id: one.body for one in told if isinstance(one.body, ToolCallRequested)}
    missing = {one.what for one in result.completeness.omissions}
    last: dict[tuple[str, str], int] = {}
    for number, one in enumerate(told):
        if isinstance(one.body, ToolCallReplied) and one.body.call_id in asked:
            key = (one.body.step_id, asked[one.body.call_id].tool)
            last.pop(key, None)  # It worked after all, or failed again.
            if one.body.outcome in ("failed", "refused") and missing & {f"tool {key[1]}", f"call of {key[1]}"}:
                last[key] = number
    details = [_without(told, number, tool, plan, asked, task) for (_, tool), number in last.items()]
    explained = tuple(f"incomplete: {what}" for _, tool in last for what in (f"tool {tool} failed", f"call of {tool} "))
    return [
        Reason(
            "doubtful",
            f"its answer is {line}",
            f"`bulkhead timeline {task}` shows the calls",
            end.at_unix_ms,
            "warn",
            (end.id,),
        )
        for line in lines
        if not (details and line.startswith(explained))
    ] + details


def _without(
    told: list[Entry], number: int, tool: str, plan: Plan | None, asked: dict[str, ToolCallRequested], task: str
) -> Reason:
    """A step that went on without a tool, what was built on it, and what was written then."""
    entry, reply = told[number], told[number].body
    assert isinstance(reply, ToolCallReplied)
    later = built_on(plan, reply.step_id)
    writes = [
        _call(asked[one.body.call_id])
        for one in told[number:]
        if isinstance(one.body, ToolCallReplied)
        and (one.body.effect, one.body.outcome) == ("write", "succeeded")
        and one.body.call_id in asked
        and one.body.step_id in (reply.step_id, *later)
    ]
    why = reply.failure.message if reply.failure else reply.outcome
    what = f"step {reply.step_id} continued without {tool}: {why}"
    what += f"; built on it: step {', step '.join(later)}" if later else "; no other step was built on it"
    more = f" and {len(writes) - MAX_WRITES_TOLD} more" if len(writes) > MAX_WRITES_TOLD else ""
    shown = ", ".join(writes[:MAX_WRITES_TOLD]) + more
    what += f"; written after it, and not undone: {shown}" if writes else "; nothing was written after it"
    check = "check whether what was written is right; " if writes else ""
    again = f"when {tool} works again, "
    if reply.failure is not None and reply.failure.code in ASKED:
        again = f"`bulkhead approvals --state all --task {task}` shows who decided; if it is to be done after all, "
    return Reason(
        "doubtful",
        what,
        f"{check}{again}`bulkhead replay {task} --from-step "
        f"{reply.step_id} --watch` runs that step and those that depend on it again (--dry-run "
        "shows what that repeats)",
        entry.at_unix_ms,
        "warn",
        (entry.id,),
    )


def built_on(plan: Plan | None, step: str) -> list[str]:
    """The steps that depend on one, directly or not, in the plan's order."""
    found = {step}
    steps = plan.steps if plan is not None else ()
    for _ in steps:
        found |= {one.id for one in steps if found & set(one.inputs)}
    return [one.id for one in steps if one.id in found and one.id != step]


def _call(body: ToolCallRequested) -> str:
    text = " ".join(body.arguments_json.split())
    text = text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
    return f"{body.tool} {text} (step {body.step_id})"
