"""Events from outside: a program tells a tenant what happened, and workflows begin or go on because of it.

An event is known by its source (the person behind the key) and its id, as CloudEvents has it: what comes again is the
same. All events of one name and key, and the steps that wait for such, meet in one fold of the planner's inbox, under
the name `event_channel(name, key)` in the place of a task; so their order is that of the inbox. What an event says is
untrusted content.
"""

import hashlib
import operator
from typing import Annotated

from pydantic import Field, StringConstraints

from bulkhead_contracts import bounds

from ..plan.v1 import AnyEventKey, EventKey, EventName, EventSources
from ..result import ContentRef, Failure, Label
from ..task.v1 import RequesterClaim
from ..types import Body, Count, Name, Token, UnixMs

EventId = Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_EVENT_ID_CHARS)]


def event_channel(name: str, key: str) -> str:
    """The token under which the events of a name and key are folded."""
    return "event-" + hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=16).hexdigest()


class EventPublished(Body, type="mesh.event.published"):
    """Something happened outside. key: "" where no step waits for it. body_json: what is known of it. requester: counts
    only where the gateway itself wrote it."""

    name: EventName
    id: EventId
    key: AnyEventKey = ""
    body_json: Annotated[str, Field(max_length=bounds.MAX_EVENT_BODY_CHARS)] = "{}"
    requester: Annotated[RequesterClaim | None, Field(exclude_if=operator.not_)] = None


class EventOccurred(Body, type="mesh.event.occurred"):
    """The gateway knows an event's source, and tells the steps that wait for it. event: by which it is known in the
    mesh, of its source and id. occurred_unix_ms: when the broker stored it."""

    name: EventName
    key: EventKey
    event: Token
    source: Name
    content: ContentRef
    occurred_unix_ms: UnixMs


class EventAwaited(Body, type="mesh.event.awaited"):
    """A step of this task waits for an event. since_unix_ms: an earlier one does not count. after: nor does one up to
    this place, which the task had already."""

    task: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    name: EventName
    key: EventKey
    sources: EventSources = ()
    since_unix_ms: UnixMs
    until_unix_ms: UnixMs
    after: Count = 0


class EventMatched(Body, type="mesh.event.matched"):
    """The event that a step waits for came, or it cannot be waited for (`failure`). place: of the event among those of
    its name and key. label: of the content, which the gateway signs for the task that waits."""

    step_id: Token
    attempt: Count
    plan_version: Count
    name: EventName
    key: EventKey
    event: Annotated[str, Field(max_length=64)] = ""
    source: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    place: Count = 0
    content: ContentRef | None = None
    label: Annotated[Label | None, Field(exclude_if=operator.not_)] = None
    failure: Annotated[Failure | None, Field(exclude_if=operator.not_)] = None
