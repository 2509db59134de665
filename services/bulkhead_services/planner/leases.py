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

LEASE_TIMER = "lease-"
Outputs = tuple[Output, ...]


def on_lease_message(
    state: PlannerState, message: InboxMessage, body: LeaseRequested | LeaseReleaseRequested | TimerFired
) -> Transition[PlannerState]:
    """The table above."""
    lease_book = replace(state.lease_book, messages=state.lease_book.messages + 1)
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
    return Transition(replace(state, lease_book=after), outputs)


def _on_lease_requested(book: LeaseBook, message: InboxMessage, body: LeaseRequested) -> tuple[LeaseBook, Outputs]:
    holder = book.holder
    if holder is None:
        return _grant_lease(book, message, body)
    if _is_same_lease(holder, body):
        book = replace(book, expires_unix_ms=message.time_unix_ms + body.ttl_ms)
        timer = SetTimer(f"{LEASE_TIMER}{book.token}-{message.sequence}", book.expires_unix_ms)
        return book, (timer, _lease_granted(book, body))
    if any(_is_same_lease(waiting, body) for waiting in book.queue):
        return book, ()
    if len(book.queue) >= bounds.MAX_LEASE_QUEUE or book.messages > bounds.MAX_LEASE_BOOK_MESSAGES:
        reason = f"{body.resource} is held, and {len(book.queue)} steps wait for it already"
        failure = Failure.from_text("lease_queue_full", reason, "go on with something else, and ask again later")
        refused = LeaseRefused(lease_id=body.lease_id, step_id=body.step_id, resource=body.resource, failure=failure)
        return book, (_send_to_requester(body, refused),)
    book = replace(book, queue=(*book.queue, body))
    fields = body.model_dump(include=_REPEATED) | {"place": len(book.queue), "until_unix_ms": book.expires_unix_ms}
    queued = LeaseQueued(**fields, holder_task=holder.task, holder_step=holder.step_id)
    return book, (_send_to_requester(body, queued),)


def _on_lease_release_requested(
    book: LeaseBook, message: InboxMessage, body: LeaseReleaseRequested
) -> tuple[LeaseBook, Outputs]:
    ended = LeaseEnded(
        lease_id=body.lease_id, call_id=body.call_id, step_id=body.step_id, resource=body.resource, why="released"
    )
    sends = (Send("worker", ended, task=body.task),)
    if book.holder is not None and _is_same_lease(book.holder, body):
        after, outputs = _grant_next(book, message)
        return after, (*sends, *outputs)
    if any(_is_same_lease(waiting, body) for waiting in book.queue):
        return replace(book, queue=tuple(waiting for waiting in book.queue if not _is_same_lease(waiting, body))), sends
    if not body.call_id:
        return book, ()  # It had expired, or was never granted: whoever is over gives back what it can.
    whose = f"it is held by step {book.holder.step_id} of task {book.holder.task}" if book.holder else "nobody holds it"
    reason = f"step {body.step_id} of task {body.task} holds no lease of {body.resource}: {whose}"
    hint = "only who holds a lease can give it back; it may have expired meanwhile"
    failure = Failure.from_text("not_lease_holder", reason, hint)
    refused = LeaseRefused(
        lease_id=body.lease_id, call_id=body.call_id, step_id=body.step_id, resource=body.resource, failure=failure
    )
    return book, (Send("worker", refused, task=body.task),)


def _on_lease_timer_fired(book: LeaseBook, message: InboxMessage, body: TimerFired) -> tuple[LeaseBook, Outputs]:
    """Only the time of the lease that is held now counts, and only when it was not prolonged."""
    token = body.key.removeprefix(LEASE_TIMER).partition("-")[0]
    if book.holder is None or token != str(book.token) or body.due_unix_ms < book.expires_unix_ms:
        return book, ()
    expired = book.holder
    ended = LeaseEnded(lease_id=expired.lease_id, step_id=expired.step_id, resource=expired.resource, why="expired")
    after, outputs = _grant_next(book, message)
    return after, (_send_to_requester(expired, ended), *outputs)


def _grant_next(book: LeaseBook, message: InboxMessage) -> tuple[LeaseBook, Outputs]:
    if not book.queue:
        return replace(book, holder=None), ()
    first, *remaining = book.queue
    return _grant_lease(replace(book, queue=tuple(remaining)), message, first)


def _grant_lease(book: LeaseBook, message: InboxMessage, body: LeaseRequested) -> tuple[LeaseBook, Outputs]:
    book = replace(book, holder=body, token=message.sequence, expires_unix_ms=message.time_unix_ms + body.ttl_ms)
    # The timer first: a lease that is known to somebody ends.
    return book, (SetTimer(f"{LEASE_TIMER}{book.token}", book.expires_unix_ms), _lease_granted(book, body))


def _lease_granted(book: LeaseBook, body: LeaseRequested) -> Send:
    same, expires = body.model_dump(include=_REPEATED), book.expires_unix_ms
    return _send_to_requester(body, LeaseGranted(**same, fencing_token=book.token, expires_unix_ms=expires))


_REPEATED = {"lease_id", "step_id", "attempt", "plan_version", "resource"}
"""Fields that an answer repeats of its request."""


def _send_to_requester(request: LeaseRequested, body: LeaseEnded | LeaseGranted | LeaseQueued | LeaseRefused) -> Send:
    return Send("worker", body, task=request.task)


def _is_same_lease(lease: LeaseRequested, body: LeaseRequested | LeaseReleaseRequested) -> bool:
    """The same lease of the same step: an id alone could be another's."""
    return (lease.lease_id, lease.task, lease.step_id) == (body.lease_id, body.task, body.step_id)
