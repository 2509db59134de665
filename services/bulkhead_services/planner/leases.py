"""Leases of one resource: who holds it, who is next, and until when. Pure.

In: requests, releases and the timer of a lease, in the order of the inbox. Out: grants, queue places, ends, refusals,
each to the step that it concerns, under that step's own task.

| holder | message                       | next                                                                       |
| ------ | ----------------------------- | -------------------------------------------------------------------------- |
| nobody | LeaseRequested                | granted                                                                    |
| A      | LeaseRequested of A's lease   | granted again, for longer, under the same token                            |
| A      | LeaseRequested of B           | queued, once; refused when the queue is full                               |
| A      | release by A; A's time is up  | the first of the queue is granted, or nobody                               |
| A      | release by B, who waits       | B waits no longer                                                          |
| A      | release by anybody else       | refused, and on record                                                     |
| any    | late timers, known requests   | the same                                                                   |
"""

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.lease import (
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    LeaseRefused,
    LeaseReleaseRequested,
    LeaseRequested,
    resource_token,
)
from bulkhead_contracts.result import Failure
from bulkhead_services.planner.state import LeaseBook, PlannerState

TIMER = "lease-"
Outputs = tuple[Output, ...]


def on_lease_message(
    state: PlannerState, message: InboxMessage, body: LeaseRequested | LeaseReleaseRequested | TimerFired
) -> Transition[PlannerState]:
    """The table above."""
    lease_book = replace(state.book, messages=state.book.messages + 1)
    if isinstance(body, TimerFired):
        after, outputs = _on_lease_timer_fired(lease_book, message, body)
    elif resource_token(body.resource) != message.task:
        # Two resources in one book would be one: whoever asks so is broken.
        return Transition(state)
    elif isinstance(body, LeaseRequested):
        after, outputs = _on_lease_requested(lease_book, message, body)
    else:
        after, outputs = _on_lease_release_requested(lease_book, message, body)
    if after.holder is None:
        after = replace(after, messages=0)
    return Transition(replace(state, book=after), outputs)


def is_free(state: LeaseBook) -> bool:
    """True when it has no holder, and so no queue."""
    return state.holder is None


def _on_lease_requested(now: LeaseBook, message: InboxMessage, body: LeaseRequested) -> tuple[LeaseBook, Outputs]:
    if now.holder is None:
        return _grant_lease(now, message, body)
    if _is_same_lease(now.holder, body):
        now = replace(now, expires_unix_ms=message.time_unix_ms + body.ttl_ms)
        timer = SetTimer(f"{TIMER}{now.token}-{message.sequence}", now.expires_unix_ms)
        return now, (timer, _lease_granted(now, body))
    if any(_is_same_lease(waiting, body) for waiting in now.queue):
        return now, ()
    if len(now.queue) >= bounds.MAX_LEASE_QUEUE or now.messages > bounds.MAX_LEASE_BOOK_MESSAGES:
        reason = f"{body.resource} is held, and {len(now.queue)} steps wait for it already"
        failure = Failure.from_text("lease_queue_full", reason, "go on with something else, and ask again later")
        refused = LeaseRefused(lease_id=body.lease_id, step_id=body.step_id, resource=body.resource, failure=failure)
        return now, (_send_to_requester(body, refused),)
    now = replace(now, queue=(*now.queue, body))
    assert now.holder is not None
    fields = body.model_dump(include=_SAME) | {"place": len(now.queue), "until_unix_ms": now.expires_unix_ms}
    return now, (
        _send_to_requester(body, LeaseQueued(**fields, holder_task=now.holder.task, holder_step=now.holder.step_id)),
    )


def _on_lease_release_requested(
    now: LeaseBook, message: InboxMessage, body: LeaseReleaseRequested
) -> tuple[LeaseBook, Outputs]:
    ended = LeaseEnded(
        lease_id=body.lease_id, call_id=body.call_id, step_id=body.step_id, resource=body.resource, why="released"
    )
    sends = (Send("worker", ended, task=body.task),)
    if now.holder is not None and _is_same_lease(now.holder, body):
        after, outputs = _grant_next(now, message)
        return after, (*sends, *outputs)
    if any(_is_same_lease(waiting, body) for waiting in now.queue):
        return replace(now, queue=tuple(waiting for waiting in now.queue if not _is_same_lease(waiting, body))), sends
    if not body.call_id:
        return now, ()  # It had expired, or was never granted: whoever is over gives back what it can.
    whose = f"it is held by step {now.holder.step_id} of task {now.holder.task}" if now.holder else "nobody holds it"
    reason = f"step {body.step_id} of task {body.task} holds no lease of {body.resource}: {whose}"
    hint = "only who holds a lease can give it back; it may have expired meanwhile"
    failure = Failure.from_text("not_lease_holder", reason, hint)
    refused = LeaseRefused(
        lease_id=body.lease_id, call_id=body.call_id, step_id=body.step_id, resource=body.resource, failure=failure
    )
    return now, (Send("worker", refused, task=body.task),)


def _on_lease_timer_fired(now: LeaseBook, message: InboxMessage, body: TimerFired) -> tuple[LeaseBook, Outputs]:
    """Only the time of the lease that is held now counts, and only when it was not prolonged."""
    token = body.key.removeprefix(TIMER).partition("-")[0]
    if now.holder is None or token != str(now.token) or body.due_unix_ms < now.expires_unix_ms:
        return now, ()
    over = now.holder
    ended = LeaseEnded(lease_id=over.lease_id, step_id=over.step_id, resource=over.resource, why="expired")
    after, outputs = _grant_next(now, message)
    return after, (_send_to_requester(over, ended), *outputs)


def _grant_next(now: LeaseBook, message: InboxMessage) -> tuple[LeaseBook, Outputs]:
    if not now.queue:
        return replace(now, holder=None), ()
    first, *remaining = now.queue
    return _grant_lease(replace(now, queue=tuple(remaining)), message, first)


def _grant_lease(now: LeaseBook, message: InboxMessage, body: LeaseRequested) -> tuple[LeaseBook, Outputs]:
    now = replace(now, holder=body, token=message.sequence, expires_unix_ms=message.time_unix_ms + body.ttl_ms)
    # The timer first: a lease that is known to somebody ends.
    return now, (SetTimer(f"{TIMER}{now.token}", now.expires_unix_ms), _lease_granted(now, body))


def _lease_granted(now: LeaseBook, body: LeaseRequested) -> Send:
    same, expires = body.model_dump(include=_SAME), now.expires_unix_ms
    return _send_to_requester(body, LeaseGranted(**same, fencing_token=now.token, expires_unix_ms=expires))


_SAME = {"lease_id", "step_id", "attempt", "plan_version", "resource"}
"""What an answer says again of its request."""


def _send_to_requester(whom: LeaseRequested, body: LeaseEnded | LeaseGranted | LeaseQueued | LeaseRefused) -> Send:
    return Send("worker", body, task=whom.task)


def _is_same_lease(one: LeaseRequested, other: LeaseRequested | LeaseReleaseRequested) -> bool:
    """The same lease of the same step: an id alone could be another's."""
    return (one.lease_id, one.task, one.step_id) == (other.lease_id, other.task, other.step_id)
