"""Alerts on the wire: accounts near their limits, notices for webhooks, findings of the watcher."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.types import Body, Count, Name, Reason, Summary, Tag, Token, UnixMs


class Alerted(Body, type="mesh.budget.alerted"):
    """Fact: an account comes near its limit; nothing is stopped. About a task, it is told to who shows it, too.

    alert derives from the account, the limit and the threshold: told again, it is the same. kind `share`: so many
    percent are spent; `rate`: as fast as it was spent lately, the limit is reached at `reached_unix_ms`, before the
    account's period ends.
    """

    alert: Token
    kind: Literal["share", "rate"]
    scope: Annotated[str, Field(max_length=200)]
    unit: Literal["cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms"]
    percent: Count
    spent: Count
    limit: Count
    reached_unix_ms: UnixMs = 0
    what: Reason
    hint: Reason = ""
    alerted_unix_ms: UnixMs


class NoticeRequested(Body, type="mesh.budget.notice_requested"):
    """Ask: tell the people outside who pay for a tenant, by its webhook; without one nothing is told.

    notice: the event's id, the same when it is told again: at least once, and whoever gets it drops doubles. kind:
    open, `share` and `rate` as in `Alerted`; `halted`, `resumed`, `breaker_opened`, `breaker_reset`, `breaker_closed`,
    `stalled`, `latency_missed`, `prompt_uses_more`, `model_changed`, `overran`; more may come. account: as
    `Alerted.scope`, or what else it is about (`tool:acme:http_get`, without figures then); never one of several
    tenants.
    """

    notice: Token
    kind: Tag
    account: Annotated[str, Field(max_length=200)]
    unit: Tag
    percent: Count
    spent: Count
    limit: Count
    reached_unix_ms: UnixMs = 0
    what: Reason
    hint: Reason = ""
    told_unix_ms: UnixMs


class Tripped(Body, type="mesh.budget.tripped"):
    """Fact: a finding of a detector of coordination health; `evidence` are the ids of the messages that show it.

    trip derives from the evidence: whoever finds the same again names it the same. halted: the task was stopped for it.
    Of a deadlock, cycle: one round of its parties, each waiting for the next and the last for the first; victim: whose
    wait was refused. tasks: of a deadlock or a breaker, of each evidence the task in whose messages it stands, "" where
    that is none.
    """

    trip: Token
    detector: Name
    level: Literal["warn", "stop"]
    agents: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_AGENTS)] = ()
    what: Reason
    hint: Reason = ""
    evidence: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_EVIDENCE)] = ()
    halted: bool = False
    tripped_unix_ms: UnixMs
    cycle: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_AGENTS, exclude_if=operator.not_)] = ()
    victim: Annotated[Summary, Field(exclude_if=operator.not_)] = ""
    tasks: Annotated[tuple[Tag, ...], Field(max_length=bounds.MAX_TRIP_EVIDENCE, exclude_if=operator.not_)] = ()
