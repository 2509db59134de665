"""Sessions: conversations over tasks, each a line of facts in the gateway's inbox under the session's own id.

A turn is a task. What is said in it lies with that task; here lie the order of the turns, the summaries that stand for
old ones, and the facts that stay in view.
"""

import operator
from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Result
from ..task.v1 import Objective, RequesterClaim, TaskLimits
from ..task_options import TaskOptions
from ..types import Body, Contract, Count, Name, Sha256, Summary, Title, Token, TokenCount, UnixMs, UsdMicros

FactText = Annotated[str, Field(min_length=1, max_length=bounds.MAX_PINNED_FACT_CHARS)]


class SessionOpened(TaskOptions, Body, type="mesh.session.opened"):
    """A person begins a session. The options and limits are those of each of its turns; conversation: its name, ""
    where that is its id.

    participants: people besides the requester who may take turns in it and read it. window_turns: so many of the last
    turns are shown whole. summary_cost_usd_micros: what all its summaries may cost together.
    """

    requester: RequesterClaim
    title: Title = ""
    participants: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_SESSION_PARTICIPANTS)] = ()
    limits: TaskLimits = TaskLimits()
    window_turns: Annotated[int, Field(ge=1, le=bounds.MAX_WINDOW_TURNS)] = bounds.DEFAULT_WINDOW_TURNS
    summary_cost_usd_micros: UsdMicros = bounds.DEFAULT_SUMMARY_COST_USD_MICROS
    opened_unix_ms: UnixMs
    payload_sha256: Sha256


class SessionSummary(Contract):
    """A summary of the turns up to `through`, made by `task`. Its result tells what was left out, and from where its
    words come; text: its content. lost_figures: figures of those turns that stand in it no more. cost_usd_micros,
    tokens: of that task. used: false where it was made in vain."""

    task: Token
    through: Count
    text: Annotated[str, Field(max_length=bounds.MAX_SESSION_SUMMARY_CHARS)] = ""
    result: Result = Result()
    lost_figures: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_LOST_FIGURES)] = ()
    cost_usd_micros: UsdMicros = 0
    tokens: TokenCount = 0
    used: bool = True


class TurnTaken(Body, type="mesh.session.turn_taken"):
    """A participant says something: the task of this id answers. One that was submitted by itself was shown nothing.

    number: 1 for the first. A number that was taken already: this turn stands in the place of that one and of all
    after it, which are no longer part of the conversation. memory_tokens, whole_tokens: estimated tokens of the earlier
    turns as they are shown to it, and as they would be without any summary. summary: one that is there now.
    begun_summary, begun_through: task of one that begins beside this turn, and the last turn in it; "" and 0 where none
    does.
    """

    number: Annotated[int, Field(ge=1, le=bounds.MAX_SESSION_TURNS)]
    task: Token
    text: Objective
    person: Name
    taken_unix_ms: UnixMs
    memory_tokens: TokenCount = 0
    whole_tokens: TokenCount = 0
    summary: SessionSummary | None = None
    begun_summary: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""
    begun_through: Annotated[Count, Field(exclude_if=operator.not_)] = 0


class FactPinned(Body, type="mesh.session.fact_pinned"):
    """A fact that every later turn is shown, or, with an empty text, no longer is.

    turn: the turn whose answer it was taken from; 0 for a participant's own words. What was taken from an answer has
    the trust of that answer.
    """

    fact_id: Token
    text: Annotated[str, Field(max_length=bounds.MAX_PINNED_FACT_CHARS)] = ""
    turn: Count = 0
    person: Name
    pinned_unix_ms: UnixMs


class SessionDeleted(Body, type="mesh.session.deleted"):
    """The session is over, and is shown no more; a purge erases it with the tasks of its turns."""

    person: Name
