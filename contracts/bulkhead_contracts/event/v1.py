"""Events for outside subscribers: what happened to a tenant's tasks, without any of their content.

Told at least once, in no promised order; `ce-id` is the same when an event is told again. An event's name, as a
subscriber's row in policy.yaml has it, is its type without `event.`: `task.ended`.
"""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..approval.v1 import Risk
from ..types import Body, Count, Digest16, Name, Reason, Tag, Token, TokenCount, UnixMs, UsdMicros


class TaskAcceptedEvent(Body, type="event.task.accepted"):
    """The task runs: its planner has it."""

    tenant: Token
    task: Token
    deadline_unix_ms: UnixMs


class StepEndedEvent(Body, type="event.step.ended"):
    """One attempt at a step is over."""

    tenant: Token
    task: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    outcome: Literal["accepted", "rejected", "failed"]
    cost_usd_micros: UsdMicros = 0
    tokens: TokenCount = 0


class TaskEndedEvent(Body, type="event.task.ended"):
    """The task is over; `rejected`: it never began.

    code: why, where it did not succeed. cost_usd_micros, tokens: as known at its end; calls that were cut off may still
    settle. url: path of the gateway's HTTP API, where its answer is (`answer`).
    """

    tenant: Token
    task: Token
    status: Literal["succeeded", "failed", "cancelled", "halted", "rejected"]
    code: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    cost_usd_micros: UsdMicros = 0
    tokens: TokenCount = 0
    steps_done: Count = 0
    steps_total: Count = 0
    url: Annotated[str, Field(max_length=200)]


class ApprovalRequestedEvent(Body, type="event.approval.requested"):
    """A call waits for a person's word. url: path of the gateway's HTTP API that takes it."""

    tenant: Token
    task: Token
    approval_id: Token
    step_id: Token
    tool: Name
    risk: Risk
    expires_unix_ms: UnixMs
    url: Annotated[str, Field(max_length=200)]


class BudgetAlertEvent(Body, type="event.budget.alert"):
    """An account of the tenant comes near its limit; nothing is stopped. Fields as in `NoticeRequested`.

    task: the one whose call brought it there.
    """

    tenant: Token
    task: Token
    kind: Tag
    account: Annotated[str, Field(max_length=200)]
    unit: Tag
    percent: Count
    spent: Count
    limit: Count
    reached_unix_ms: UnixMs = 0


class TaskHaltedEvent(Body, type="event.task.halted"):
    """The task is held back, by a person or at its ceiling, or was stopped. what, hint: why, and what to do."""

    tenant: Token
    task: Token
    what: Reason
    hint: Reason = ""


class EventPostRequested(Body, type="mesh.event.post_requested"):
    """Ask: post an event to the tenant's webhook; without one nothing is posted.

    id, event, time_unix_ms: its `ce-id`, `ce-type` and `ce-time`, the same as in the stream of events. data_json: its
    body.
    """

    id: Digest16
    event: Annotated[str, Field(pattern=r"^event\.[a-z_.]{1,64}\.v[0-9]{1,6}$")]
    time_unix_ms: UnixMs
    data_json: Annotated[str, Field(max_length=bounds.MAX_EVENT_CHARS)]
