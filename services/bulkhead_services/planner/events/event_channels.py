"""Events from outside of one name and key, and the steps that wait for them. Pure.

In: `EventOccurred` of the gateway, `EventAwaited` of the planner's tasks, in the order of the inbox. Out:
`EventMatched` for each step whose wait an event ends, by way of the gateway, under that step's own task.

| message       | known already              | next                                                              |
| ------------- | -------------------------- | ----------------------------------------------------------------- |
| EventOccurred | the same event             | nothing                                                           |
| EventOccurred | steps that wait for it     | all of them are told; the event is kept for those that wait later |
| EventAwaited  | the same wait              | nothing                                                           |
| EventAwaited  | an event that counts       | told at once, of the first one                                    |
| EventAwaited  | none                       | it waits, until its time; refused when too many do                |
"""

from operator import itemgetter

from bulkhead.flow import InboxMessage, Send, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.outside_event import EventAwaited, EventMatched, EventOccurred, event_channel
from bulkhead_contracts.result import Failure
from bulkhead_services.planner.state import EventChannel, PlannerState


def on_event_message(
    state: PlannerState, message: InboxMessage, body: EventOccurred | EventAwaited
) -> Transition[PlannerState]:
    """The table above."""
    if event_channel(body.name, body.key) != message.task:
        return Transition(state)
    now_unix_ms = message.time_unix_ms
    recent_events = (row for row in state.event_channel.events if row[1].occurred_unix_ms >= now_unix_ms - _KEPT_MS)
    waiting = (waiter for waiter in state.event_channel.waiters if waiter.until_unix_ms > now_unix_ms)
    channel = EventChannel(tuple(recent_events), tuple(waiting))
    if isinstance(body, EventOccurred):
        channel, sends = _on_event_occurred(channel, message.sequence, body)
    else:
        channel, sends = _on_event_awaited(channel, body)
    return Transition(replace(state, event_channel=channel), sends)


_KEPT_MS = 2 * bounds.MAX_EVENT_EARLY_MS
"""Longer than any wait looks back: the clocks of its senders differ."""


def _on_event_occurred(channel: EventChannel, place: int, body: EventOccurred) -> tuple[EventChannel, tuple[Send, ...]]:
    if any(event.event == body.event for _, event in channel.events):
        return channel, ()
    matched = [waiter for waiter in channel.waiters if _is_awaited(waiter, place, body)]
    waiters = tuple(waiter for waiter in channel.waiters if waiter not in matched)
    events = _keep_last((*channel.events, (place, body)))
    return EventChannel(events, waiters), tuple(_event_matched(waiter, place, body) for waiter in matched)


def _keep_last(events: tuple[tuple[int, EventOccurred], ...]) -> tuple[tuple[int, EventOccurred], ...]:
    """The last events of each of the last sources: what one source tells drives out no other's."""
    by_source: dict[str, list[tuple[int, EventOccurred]]] = {}
    for row in reversed(events):
        by_source.setdefault(row[1].source, []).append(row)
    of_sources = list(by_source.values())[: bounds.MAX_EVENT_SOURCES]
    return tuple(sorted((row for rows in of_sources for row in rows[: bounds.MAX_KEPT_EVENTS]), key=itemgetter(0)))


def _on_event_awaited(channel: EventChannel, body: EventAwaited) -> tuple[EventChannel, tuple[Send, ...]]:
    for place, event in channel.events:
        if _is_awaited(body, place, event):
            return channel, (_event_matched(body, place, event),)
    if body in channel.waiters:
        return channel, ()
    if len(channel.waiters) >= bounds.MAX_EVENT_WAITERS:
        reason = f"{len(channel.waiters)} steps wait for {body.name} of {body.key} already"
        failure = Failure.from_text("too_many_waits", reason, "let one of them wait, or give the events other keys")
        return channel, (_reply_to(body, failure=failure),)
    return replace(channel, waiters=(*channel.waiters, body)), ()


def _is_awaited(waiter: EventAwaited, place: int, event: EventOccurred) -> bool:
    """True for an event that ends this wait."""
    if waiter.sources and event.source not in waiter.sources:
        return False
    return place > waiter.after and event.occurred_unix_ms >= waiter.since_unix_ms


def _event_matched(waiter: EventAwaited, place: int, event: EventOccurred) -> Send:
    return _reply_to(waiter, event=event.event, source=event.source, place=place, content=event.content)


def _reply_to(waiter: EventAwaited, **fields: object) -> Send:
    fields |= waiter.model_dump(include={"step_id", "attempt", "plan_version", "name", "key"})
    return Send("gateway", EventMatched.model_validate(fields), task=waiter.task)
