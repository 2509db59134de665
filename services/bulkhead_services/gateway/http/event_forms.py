"""Pieces of the OpenAPI document: the events of a task's stream."""

from bulkhead_services.gateway.read_model import events

_EVENT_NAMES = [*events.NAMES.values(), events.RESUMED, "task.rejected", *events.CALLS, events.TEXT]
EVENT = {
    "description": "Each event of the stream",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": _EVENT_NAMES},
        "retry": {"type": "integer"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}

EVENTS = """Server-sent events, in order. Every `id:` is opaque: send the last one as `Last-Event-ID` to resume after
it.

`task.queued`, `task.released`, `task.accepted`, `plan.rejected`, `plan.proposed` (it waits for a person),
`plan.adopted`, `step.started`, `step.ended`, `task.paused` (`reason` says what holds the task back and what lets it go
on), `task.resumed`, `approval.requested` (a call waits for a person), `approval.ended`, `task.ended`, `task.rejected`
and `budget.alerted` (a limit of the task is near) are stored facts: each arrives exactly once. `text` carries a step's
text while it is written: {step_id, attempt, call_id, offset, text, replace}. Keep the first `offset` characters
(Unicode code points) of the step's text and append `text`; `replace` set to true withdraws text that was shown before.
The text is complete before `step.ended` with outcome `accepted`. `tool.started`, `tool.ended`, `retrieval.started` and
`retrieval.ended` tell the calls of a step as they happen: {call_id, step_id, attempt, tool, looks_at}, at the end with
outcome, code, duration_ms, excerpt, passages and sources. They are not stored: one may be missing, or come again after
a reconnect. Excerpts are short and masked, and "" for who may not read the task's history. `task.ended` carries the
answer, and the stream ends after it; reconnecting then gives 204. Lines that begin with a colon are heartbeats."""
