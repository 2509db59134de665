"""Shapes of the HTTP API for operators and auditors: halts, breakers, limits, spending and top-ups."""

from typing import Annotated, get_args

from pydantic import BeforeValidator, Field

from bulkhead.quotas.tenant_quotas import PolicyDocument
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import (
    Alerted,
    BreakerWindow,
    DeadLetter,
    Limit,
    LimitChange,
    LimitTarget,
    MessageEdge,
    OpenWait,
    ServiceLoad,
    SpendBy,
    SpendRow,
    Spent,
    SubscriberLoad,
    TargetLimit,
    TaskTrip,
    TopUp,
)
from bulkhead_contracts.control import Breaker, BreakerScope, Halt, HaltScope
from bulkhead_contracts.types import Contract, Count, Name, Reason, Token, UnixMs
from bulkhead_services.gateway.http.schemas import STRICT

MAX_LISTED = 1_000
SINCE = r"[1-9][0-9]{0,6}[smhd]"
KINDS: tuple[SpendBy, ...] = get_args(SpendBy)


def one_line(reason: object) -> object:
    """A reason on one line: with line ends of its own it could forge the next line of a listing."""
    return " ".join(reason.split()) if isinstance(reason, str) else reason


ReasonInput = Annotated[Reason, Field(min_length=1), BeforeValidator(one_line)]


class HaltSubmission(Contract):
    """Body of POST /v1/halts and /v1/resumes. name: as the thing is called, for example `worker.step` or `gpt-4.1`."""

    model_config = STRICT

    scope: HaltScope
    name: Name
    reason: ReasonInput


class ResetSubmission(Contract):
    """Body of POST /v1/resets: a breaker as /v1/breakers names it, and the reason to close it."""

    model_config = STRICT

    scope: BreakerScope
    name: Name
    reason: ReasonInput


class DismissalSubmission(Contract):
    """Body of POST /v1/dead-letters/{letter_id}/dismiss."""

    model_config = STRICT

    reason: Annotated[ReasonInput, Field(max_length=1_000)]


class DeadLetterPage(Contract):
    """Dead letters of the tenant, the oldest first. content: whether this caller may read what they hold, and so their
    reasons. next: the cursor of the following page."""

    letters: Annotated[tuple[DeadLetter, ...], Field(max_length=bounds.MAX_LETTERS_LISTED)]
    content: bool
    next: str | None


class DeadLetterDocument(Contract):
    """A dead letter; headers and body of its message as text, for who may read content. left_out_chars,
    left_out_headers: how much of them is not here."""

    letter: DeadLetter
    content: bool
    headers: dict[str, str]
    body: str
    left_out_chars: Count
    left_out_headers: Count


class HaltPage(Contract):
    """Halts set by people, the oldest first."""

    halts: Annotated[tuple[Halt, ...], Field(max_length=MAX_LISTED)]


class BreakerPage(Contract):
    """Breakers that have opened, the open ones first."""

    breakers: Annotated[tuple[Breaker, ...], Field(max_length=MAX_LISTED)]


class CoordinationPage(Contract):
    """Coordination of the tenant's tasks: open waits, those who are stuck first; findings of the detectors, the
    newest first, as far as they are remembered; what breakers have counted within their window.
    """

    waits: Annotated[tuple[OpenWait, ...], Field(max_length=bounds.MAX_WAITS_LISTED)]
    more_waits: Count
    trips: Annotated[tuple[TaskTrip, ...], Field(max_length=bounds.MAX_TRIPS_LISTED)]
    windows: Annotated[tuple[BreakerWindow, ...], Field(max_length=bounds.MAX_WINDOWS_LISTED)]


class MeshPage(Contract):
    """Load of the whole mesh, of all tenants together: services with replicas, lag, failures and dead letters; messages
    stored in the last window_ms from one service to another."""

    services: Annotated[tuple[ServiceLoad, ...], Field(max_length=bounds.MAX_SERVICES_LISTED)]
    edges: Annotated[tuple[MessageEdge, ...], Field(max_length=bounds.MAX_EDGES_LISTED)]
    window_ms: Count


class SubscriberDocument(SubscriberLoad):
    """An outside subscriber of the tenant: its load, and the events that its row has."""

    tenant: Token
    events: tuple[str, ...]


class SubscriberPage(Contract):
    """The tenant's outside subscribers."""

    subscribers: Annotated[tuple[SubscriberDocument, ...], Field(max_length=bounds.MAX_SUBSCRIBERS)]


class LimitInput(Limit):
    """Ceilings by unit; a unit that is absent or null has none."""

    model_config = STRICT


class LimitSubmission(Contract):
    """Body of PUT /v1/limits: one target and its ceilings; without ceilings its limit is removed.

    expect_revision: change nothing if the limits have another revision by now.
    """

    model_config = STRICT

    target: LimitTarget
    limit: LimitInput = LimitInput()
    expect_revision: Count | None = None


class LimitPage(Contract):
    """A tenant's limits and top-ups. `revision` counts the changes.

    alerts: limits that were nearly reached, the latest first; empty in the answer to a change. history: the changes of
    the last 31 days, the newest first, where it was asked for. policy: the tenant's
    policy, where the lower of both holds; null where the gateway does not know it.
    """

    revision: Count
    limits: Annotated[tuple[TargetLimit, ...], Field(max_length=bounds.MAX_LIMIT_TARGETS)]
    top_ups: Annotated[tuple[TopUp, ...], Field(max_length=bounds.MAX_TOP_UPS)] = ()
    alerts: Annotated[tuple[Alerted, ...], Field(max_length=bounds.MAX_ALERTS_LISTED)] = ()
    history: Annotated[tuple[LimitChange, ...], Field(max_length=bounds.MAX_CHANGES_LISTED)] = ()
    policy: PolicyDocument | None = None


class SpendPage(Contract):
    """Cost of the calls admitted since then, by name, the highest first; `rest` sums the other rest_rows.

    held: reserved for calls that have not settled. late: settled since then for calls admitted before; in no row.
    kept_unix_ms: not 0 if older spending was asked for; spending of tasks that ended before it may have been purged.
    slices: cost in micro US dollars of the calls of each equal part of the time, the oldest first.
    """

    by: SpendBy
    since_unix_ms: UnixMs
    until_unix_ms: UnixMs
    kept_unix_ms: UnixMs
    rows: Annotated[tuple[SpendRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)]
    rest: SpendRow
    rest_rows: Count
    total: SpendRow
    late: Spent
    slices: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_SPEND_SLICES)] = ()


class TopUpSubmission(Contract):
    """Body of POST /v1/tasks/{task_id}/topup: the amounts to add, by unit, and the reason."""

    model_config = STRICT

    add: LimitInput
    reason: ReasonInput


class TopUpReceipt(Contract):
    """Answer to a top-up. added: the sum of the task's top-ups. resumed: it was halted at its ceiling and goes on."""

    task_id: str
    added: Limit
    revision: Count
    resumed: bool
    status_url: str
