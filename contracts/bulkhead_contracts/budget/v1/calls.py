"""Calls of models and tools on the wire: requests of operators for single calls, and their replies."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Tag, Token, UnixMs

CallKind = Literal["model", "tool"]
CallOrder = Literal["newest", "slowest", "dearest"]


class CallsRequested(Body, type="mesh.budget.calls_requested"):
    """An operator or auditor asks which calls of a tenant were asked for since then (rpc).

    kind, name: of calls of these alone; "" for any. failed: those alone that brought no answer. top: so many rows.
    tasks_only: of the tasks that asked for such calls of a tool, and no call itself: everybody of the tenant may ask.
    """

    requester: RequesterClaim
    since_s: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_S)]
    kind: Literal["", "model", "tool"] = ""
    name: Annotated[str, Field(max_length=200)] = ""
    failed: bool = False
    order: CallOrder = "newest"
    top: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_ROWS)] = 50
    tasks_only: bool = False


class CallRow(Contract):
    """One call with all of its attempts.

    name: of the model or tool; asked_unix_ms: admission of its first attempt, or its request where none was admitted.
    took_ms: from the first attempt to the end of the last; 0 while that is not known. attempts: 0 of a call that was
    refused before one, or waits for it. failed: the code of its last attempt where none brought an answer; without an
    attempt `waits` while the task goes on, then `not_made`. open: an attempt is under way.
    """

    call_id: Token
    task: Token
    step_id: str = ""
    kind: CallKind
    name: Annotated[str, Field(max_length=200)]
    asked_unix_ms: UnixMs
    took_ms: Count = 0
    attempts: Count = 0
    tokens: Count = 0
    cost_usd_micros: Count = 0
    failed: Tag = ""
    open: bool = False


class CallsReplied(Body, type="mesh.budget.calls_replied"):
    """Rows in the order that was asked for; more: how many others fit. tasks: those that asked for such calls, the
    newest first, where only they were asked for."""

    since_unix_ms: UnixMs = 0
    until_unix_ms: UnixMs = 0
    rows: Annotated[tuple[CallRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)] = ()
    more: Count = 0
    tasks: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_CALLING_TASKS)] = ()
    failure: Failure | None = None
