"""Reads of sessions: conversations over tasks."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.query import Id, Query, Remedy, Whole
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Completeness, Standing
from bulkhead_contracts.types import Contract, Count, UnixMs

SessionId = Annotated[Id, Field(description="The session's id")]
MAX_TURN_PAGE = 20
MAX_SESSION_PAGE = 20
MAX_REPLACED_TURNS = 20
MAX_REPLACED_CHARS = 300
MAX_KEPT_SESSIONS = 100


class SummaryFigures(Contract):
    """Cost of a session's summaries, and what they saved. made: those that are, or were, used. in_vain: others, which
    failed or were no shorter. tokens, cost_usd_micros: of all of them. tokens_saved: estimated tokens that turns so far
    were not shown because a summary stood for them."""

    made: Count = 0
    in_vain: Count = 0
    tokens: Count = 0
    cost_usd_micros: Count = 0
    tokens_saved: Count = 0


class SummaryDocument(Contract):
    """The summary that stands for the oldest turns, up to `through`. completeness: what it leaves out."""

    through: Count
    text: str
    completeness: Completeness
    task_id: str


class FactDocument(Contract):
    """A pinned fact. turn: whose answer it was taken from, 0 for a participant's own words."""

    fact_id: str
    text: str
    turn: Count
    person: str
    pinned_unix_ms: UnixMs


class ReplacedTurn(Contract):
    """A turn in whose place another one stands: no model is shown it any more. text: its beginning."""

    number: Count
    task_id: str
    person: str
    text: Annotated[str, Field(max_length=MAX_REPLACED_CHARS)]
    taken_unix_ms: UnixMs


class TurnDocument(Contract):
    """A turn of a session. status: of its task, `unknown` once that is purged. answer: null while there is none.
    memory_tokens: estimated tokens of the earlier turns as it was shown them; whole_tokens: as they were said.
    replaced: the last turns whose place it took."""

    number: Count
    task_id: str
    person: str
    text: str
    taken_unix_ms: UnixMs
    status: str
    answer: str | None = None
    standing: Standing | None = None
    failure: str = ""
    tokens: Count = 0
    cost_usd_micros: Count = 0
    memory_tokens: Count = 0
    whole_tokens: Count = 0
    replaced: Annotated[tuple[ReplacedTurn, ...], Field(max_length=MAX_REPLACED_TURNS)] = ()
    status_url: str
    events_url: str


class SessionSummaryRow(Contract):
    """A session in a list. turn_count: without turns that were replaced. changed_unix_ms: of its last turn or pinned
    fact."""

    session_id: str
    title: str
    person: str
    opened_unix_ms: UnixMs
    turn_count: Count = 0
    changed_unix_ms: UnixMs = 0


class SessionDocument(SessionSummaryRow):
    """A session. turns: a page of them, in order, the newest without `before`; `next` is the `before` of the page
    with older ones, null where there is none."""

    participants: tuple[str, ...] = ()
    window_turns: Count
    summary_limit_usd_micros: Count
    turns: Annotated[tuple[TurnDocument, ...], Field(max_length=MAX_TURN_PAGE)]
    next: Count | None = None
    facts: Annotated[tuple[FactDocument, ...], Field(max_length=bounds.MAX_PINNED_FACTS)] = ()
    summary: SummaryDocument | None = None
    summaries: SummaryFigures = SummaryFigures()


class SessionPage(Contract):
    """Sessions of the caller, the newest first."""

    sessions: Annotated[tuple[SessionSummaryRow, ...], Field(max_length=MAX_SESSION_PAGE)]


class SessionListQuery(Query[SessionPage], name="listSessions", path="/v1/sessions", action="read sessions"):
    """The caller's sessions, the newest first

    At most 20. Those that are deleted or purged are left out."""


class SessionQuery(
    Query[SessionDocument], name="getSession", path="/v1/sessions/{session_id}", action="read sessions", problems=(404,)
):
    """A session with its newest turns

    For its participants and for operators. The tasks of its turns are the tenant's, and read as any task is."""

    session_id: SessionId
    before: Annotated[
        int,
        Field(ge=0, le=bounds.MAX_SESSION_TURNS + 1, description="Only turns below this number; 0 for the newest"),
        Whole,
        Remedy("send the `next` of the page before"),
    ] = 0


class KeptData(Contract):
    """Data that an erasure leaves, and the reason. session_ids: of others, in which the person took turns."""

    what: str
    reason: str
    session_ids: Annotated[tuple[str, ...], Field(max_length=MAX_KEPT_SESSIONS)] = ()


class SessionErasureReceipt(Contract):
    """Sessions of a person that are erased. erased: by this request; they are shown no more. waiting: deleted ones,
    these included, which the next purges remove with all of their contents. remaining: those beyond what one request
    does; send it again."""

    person: str
    erased: Count
    waiting: Count
    remaining: Count
    kept: Annotated[tuple[KeptData, ...], Field(max_length=8)]
