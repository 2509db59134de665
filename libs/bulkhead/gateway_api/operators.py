"""Reads for operators and auditors: halts, breakers, limits, spending, coordination, load and more."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from bulkhead.gateway_api.query import OVERSEERS, Flag, Id, PageSize, Period, Query, Remedy, Whole
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import (
    Alerted,
    BreakerWindow,
    CallOrder,
    CallRow,
    ControlChange,
    DeadLetter,
    Limit,
    LimitChange,
    MessageEdge,
    OpenWait,
    ServiceLoad,
    SpendKey,
    SpendOutlier,
    SpendRow,
    Spent,
    SubscriberLoad,
    TargetLimit,
    TaskTrip,
    TopUp,
    WaitMinute,
)
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.types import Contract, Count, Token, UnixMs

MAX_LISTED = 1_000
KINDS: tuple[SpendKey, ...] = get_args(SpendKey)
CALL_ORDERS: tuple[CallOrder, ...] = get_args(CallOrder)
AnyCallKind = Literal["", "model", "tool"]


class HaltPage(Contract):
    """Halts set by people, the oldest first."""

    halts: Annotated[tuple[Halt, ...], Field(max_length=MAX_LISTED)]


class BreakerPage(Contract):
    """Breakers that have opened, the open ones first."""

    breakers: Annotated[tuple[Breaker, ...], Field(max_length=MAX_LISTED)]


class CoordinationPage(Contract):
    """Coordination of the tenant's tasks: open waits, those who are stuck first; findings of the detectors, the
    newest first, as far as they are remembered; what breakers have counted within their window. minutes: those of the
    last three hours that had waits, the oldest first, each with its fullest moment. changes: halts, lifts and resets by
    people, the newest first, as far as they are remembered.
    """

    waits: Annotated[tuple[OpenWait, ...], Field(max_length=bounds.MAX_WAITS_LISTED)]
    more_waits: Count
    trips: Annotated[tuple[TaskTrip, ...], Field(max_length=bounds.MAX_TRIPS_LISTED)]
    windows: Annotated[tuple[BreakerWindow, ...], Field(max_length=bounds.MAX_WINDOWS_LISTED)]
    minutes: Annotated[tuple[WaitMinute, ...], Field(max_length=bounds.MAX_WAIT_MINUTES)] = ()
    changes: Annotated[tuple[ControlChange, ...], Field(max_length=bounds.MAX_CONTROL_CHANGES)] = ()


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


class PolicyDocument(Contract):
    """Ceilings of the tenant's policy: one task, and all of its tasks of a day (UTC). The signer holds every
    task to it; a limit above it changes nothing.
    """

    task: Limit
    day: Limit


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
    slices: cost in micro US dollars of the calls of each equal part of the time, the oldest first; call_slices: their
    number. outliers: what cost, or took, ten times the median of its kind or more.
    """

    by: SpendKey
    since_unix_ms: UnixMs
    until_unix_ms: UnixMs
    kept_unix_ms: UnixMs
    rows: Annotated[tuple[SpendRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)]
    rest: SpendRow
    rest_rows: Count
    total: SpendRow
    late: Spent
    slices: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_SPEND_SLICES)] = ()
    call_slices: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_SPEND_SLICES)] = ()
    outliers: Annotated[tuple[SpendOutlier, ...], Field(max_length=bounds.MAX_SPEND_OUTLIERS)] = ()


class CallPage(Contract):
    """Calls of models and tools that were asked for since then. more: how many others fit, which a shorter time or a
    filter shows."""

    since_unix_ms: UnixMs
    until_unix_ms: UnixMs
    rows: Annotated[tuple[CallRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)]
    more: Count


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


class HaltListQuery(Query[HaltPage], name="listHalts", path="/v1/halts", action="read halts"):
    """List the halts set by people, the oldest first."""


class BreakerListQuery(Query[BreakerPage], name="listBreakers", path="/v1/breakers", action="read breakers"):
    """List breakers that have opened, the open ones first."""


class LimitsQuery(Query[LimitPage], name="showLimits", path="/v1/limits", action="read limits"):
    """Show the tenant's limits."""

    history: Annotated[Flag, Field(description="Whether to tell the last changes, too")] = False


class SpendingQuery(
    Query[SpendPage],
    name="showSpending",
    path="/v1/spend",
    action="see what is spent",
    allowed=OVERSEERS,
    problems=(409,),
):
    """Show the cost of the tenant's calls, by name; for operators and auditors.

    A call counts at the time of its admission. The sums are the providers' own counts.
    """

    by: Annotated[SpendKey, Field(description="Key of the sums"), Remedy(f"send one of {', '.join(KINDS)}")] = "agent"
    since: Annotated[Period, Field(min_length=2, description="Age of the oldest call, at most 31d")] = "24h"
    limit: Annotated[PageSize, Field(description="Number of rows; the others are added up in one")] = 20
    skip: Annotated[
        int,
        Field(ge=0, le=999_999, description="Rows to leave out, for the next page while rest_rows is not 0"),
        Whole,
        Remedy("send the number of rows that you have"),
    ] = 0
    slices: Annotated[
        int,
        Field(
            ge=0, le=bounds.MAX_SPEND_SLICES, description="Number of equal parts of the time whose costs are told, too"
        ),
        Whole,
        Remedy(f"send a number up to {bounds.MAX_SPEND_SLICES}"),
    ] = 0
    outliers: Annotated[
        int,
        Field(
            ge=0,
            le=bounds.MAX_SPEND_OUTLIERS,
            description="Number of tasks, steps and calls to name that cost or took ten times the median of their kind",
        ),
        Whole,
        Remedy(f"send a number up to {bounds.MAX_SPEND_OUTLIERS}"),
    ] = 0
    tasks: Annotated[
        str, Field(description=f"Of calls of these alone: up to {bounds.MAX_SPEND_ROWS} ids, with commas")
    ] = ""


class CallListQuery(
    Query[CallPage],
    name="listCalls",
    path="/v1/calls",
    action="see the calls of all tasks",
    allowed=OVERSEERS,
    problems=(409,),
):
    """List calls of models and tools of all tasks, each with its attempts, time and cost; for operators and auditors.

    A call whose attempts all failed has the code of the last one in `failed`; one without an attempt has `waits` while
    its task goes on, and then `not_made`: it was refused, or its task ended before.
    """

    since: Annotated[Period, Field(min_length=2, description="Age of the oldest call, at most 31d")] = "1h"
    kind: Annotated[
        AnyCallKind, Field(description="Only calls of models, or of tools"), Remedy("send model or tool")
    ] = ""
    name: Annotated[str, Field(max_length=200, description="Only calls of this model or tool")] = ""
    failed: Annotated[Flag, Field(description="Only calls that brought no answer")] = False
    order: Annotated[
        CallOrder, Field(description="Order of the rows"), Remedy(f"send one of {', '.join(CALL_ORDERS)}")
    ] = "newest"
    limit: PageSize = 50


class TaskCoordinationQuery(
    Query[CoordinationPage],
    name="showCoordination",
    path="/v1/coordination",
    action="see how tasks hang together",
    allowed=OVERSEERS,
):
    """Show who waits for whom, loops, chatter and broken circles, and windows of breakers; for operators and
    auditors.
    """

    at: Annotated[
        int,
        Field(ge=0, le=10**15, description="Moment (Unix, ms) of the last three hours whose waits are shown; 0: now"),
        Whole,
        Remedy("send the start_unix_ms of one of the minutes"),
    ] = 0


class MeshQuery(
    Query[MeshPage], name="showMesh", path="/v1/mesh", action="see the load of the mesh", allowed=OVERSEERS
):
    """Show replicas, lag, failures and dead letters of services and the messages between them; for operators and
    auditors.

    Of the whole mesh: an operator of any tenant sees its load, and no tenant, task or person. `replicas` is null
    while the broker cannot tell how many there are.
    """


class SubscriberListQuery(
    Query[SubscriberPage], name="listSubscribers", path="/v1/subscribers", action="see subscribers", allowed=OVERSEERS
):
    """List the tenant's outside subscribers: events that wait for each, and that it has not acknowledged; for
    operators and auditors.
    """


class LetterListQuery(
    Query[DeadLetterPage], name="listDeadLetters", path="/v1/dead-letters", action="see dead letters", allowed=OVERSEERS
):
    """List the tenant's messages that a service could not handle, the oldest first; for operators and auditors.

    A page is chosen from 2,000 letters at most: it may be short, and `next` leads on. Reasons may quote what a
    message holds: operators alone are told them, and each look is logged.
    """

    all: Annotated[Flag, Field(description="Those too that were sent again or dismissed")] = False
    limit: PageSize = 20
    cursor: Annotated[str, Field(description="`next` of the previous page")] = ""


class LetterQuery(
    Query[DeadLetterDocument],
    name="showDeadLetter",
    path="/v1/dead-letters/{letter_id}",
    action="see dead letters",
    allowed=OVERSEERS,
    problems=(409, 422),
):
    """Show one of them, for operators with headers and body as text.

    Grants, vouchers and whatever looks like a key are left out; each look at content is logged.
    """

    letter_id: Annotated[Id, Field(description="The letter's id, or its first characters, four at least")]
