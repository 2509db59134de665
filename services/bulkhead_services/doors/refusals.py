"""Failures of the mesh as an API tells them. Pure. In: a failure, a deferral, an end. Out: a DoorRefusal.

A refusal by budget, halt or policy is a 403 that no SDK sends again; what may work in a moment is a 503 with
Retry-After; what a provider did is a 502, not sent again either: the mesh has tried again already.
"""

from bulkhead.callers.shares import Share
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskEnded, TaskQueued, TaskRejected
from bulkhead_services.doors.port import DoorRefusal

AT_CEILING = "budget_exceeded"
BY_BUDGET, HALTED = "refused_by_budget", "halted"
ABANDONED, RUN_OVER = "abandoned", "task_ended"
BREAKER_OPEN, APPROVAL_WANTED = "breaker_open", "approval_wanted"
SOON_S = 5.0
MOST_AGAIN_S = 60.0
_STATUS = {
    BY_BUDGET: 403,
    HALTED: 403,
    "refused_by_policy": 403,
    "bad_grant": 403,
    "expired": 403,
    RUN_OVER: 403,
    "unknown_route": 404,
    "unknown_model": 404,
    "context_overflow": 400,
    "unsupported_parameter": 400,
    "request_refused": 400,
    "content_filter": 400,
    "rate_limited": 429,
    "timeout": 504,
    "deadline_exceeded": 504,
    "deadline_too_short": 504,
}
"""By code; any other is what a provider or the mesh did: 502."""
_CODES = {AT_CEILING: BY_BUDGET}


def too_many_calls(full: Share, what: str, hint: str) -> DoorRefusal:
    """A caller has as many calls as he may, or all together have."""
    whose = {"person": "you have", "tenant": "your tenant has", "all": "all callers together have"}[full.holder]
    message = f"{whose} {full.capacity} calls {what} at this replica, as many as are allowed"
    status = 503 if full.holder == "all" else 429
    return DoorRefusal(status, "too_many_calls", message, hint, retry=True, retry_after_s=1.0)


def call_abandoned() -> DoorRefusal:
    """A call that waited for its turn, and is not sent again: nobody follows it."""
    message = "nobody followed the call any more while it waited, and it was given up"
    return DoorRefusal(503, ABANDONED, message, "send the request again", retry=True, retry_after_s=1.0)


def of_failure(failure: Failure) -> DoorRefusal:
    """A call that has no answer."""
    status, code = _STATUS.get(failure.code, 502), _CODES.get(failure.code, failure.code)
    if code == ABANDONED:
        return DoorRefusal(503, code, failure.message, failure.hint, retry=True, retry_after_s=1.0)
    if status == 429:
        return DoorRefusal(status, code, failure.message, failure.hint, retry=True, retry_after_s=SOON_S)
    return DoorRefusal(status, code, failure.message, failure.hint)


def of_deferral(deferred: CallDeferred) -> DoorRefusal:
    """A call that was put off for longer than its asker waits, or in the middle of its answer."""
    if deferred.paused and deferred.code != BREAKER_OPEN:
        code = BY_BUDGET if deferred.code == AT_CEILING else HALTED
        return DoorRefusal(403, code, deferred.reason, "the run goes on when that is lifted; ask again then")
    code, after_s = deferred.code or "unavailable", max(1.0, round(deferred.after_ms / 1000, 1))
    reason = deferred.reason or "the call was put off"
    return DoorRefusal(503, code, reason, "ask again in a moment", retry=True, retry_after_s=after_s)


def of_end(task: str, ended: TaskEnded, again_s: float) -> DoorRefusal:
    """A run that is over. again_s: so long its caller gets no other one unless it names one; 0: for ever."""
    hint = "name another run (X-Bulkhead-Run)"
    if again_s:
        hint = f"{hint}, or call again in {again_s:.0f} s"
    if ended.failure is None:
        return DoorRefusal(403, "run_ended", f"run {task} has ended", hint)
    code = _CODES.get(ended.failure.code, ended.failure.code)
    return DoorRefusal(403, code, f"run {task} has ended: {ended.failure.message}", hint)


def of_rejection(rejected: TaskRejected) -> DoorRefusal:
    """A run that the mesh did not take."""
    hint = rejected.hint or "ask the operator"
    if rejected.code in ("too_many_tasks", "queue_full"):
        return DoorRefusal(429, rejected.code, rejected.message, hint, retry=True, retry_after_s=SOON_S)
    return DoorRefusal(403, rejected.code, rejected.message, hint)


def run_not_begun(task: str, queued: TaskQueued | None, waited_s: float) -> DoorRefusal:
    """A run that has not begun after a while: it waits for a place, or a part of the mesh is away."""
    if queued is None:
        message = f"run {task} is asked for and has not begun after {waited_s:g} s"
        return mesh_unavailable(message, "the gateway, the signer or the planner is away or behind: ask again")
    whose = "your tenant" if queued.full == "tenant" else "the whole mesh"
    message = (
        f"run {task} waits for a place: {queued.running} of {queued.limit} tasks of {whose} were running when it came, "
        f"and {queued.ahead} of your tenant waited before it"
    )
    again_s = min(MOST_AGAIN_S, SOON_S * (1 + queued.ahead // max(1, queued.limit)))
    hint = f"send the request again in {again_s:g} s: the run keeps its place in the queue till then"
    return DoorRefusal(503, "no_place", message, hint, retry=True, retry_after_s=again_s)


def mesh_unavailable(what: str, hint: str = "ask again in a moment", *, retry_after_s: float = SOON_S) -> DoorRefusal:
    """A part of the mesh that does not answer in time; nothing that was stored is lost."""
    return DoorRefusal(503, "unavailable", what, hint, retry=True, retry_after_s=retry_after_s)


def no_such_run(task: str) -> DoorRefusal:
    """A run that this caller does not have; whether it is another's is not told."""
    return DoorRefusal(404, "no_such_run", f"you have no run {task}", "leave X-Bulkhead-Task away to begin one")
