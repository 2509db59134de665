"""Spending on the wire: requests of operators and their replies."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Token, UnixMs

SpendBy = Literal["agent", "step", "workflow", "feature", "user", "tenant", "model", "tool", "task"]
SpendKey = Literal[SpendBy, "prompt"]
"""As people name it: on the wire `prompt` is a flag, which released readers pass over."""


class SpendRequested(Body, type="mesh.budget.spend_requested"):
    """An operator or auditor asks what the calls of a tenant cost that were admitted since then (rpc).

    top: so many rows, the dearest; the others come as one sum. of_task: of the message's task alone, or of `tasks`, as
    the ledger has them now, a row for each; the gateway knows that whoever asks may read those tasks. slices: into so
    many equal parts the time is divided; 0 for none. tasks: of the calls of these alone; empty for all of the tenant's.
    skip: so many of the dearest rows are left out, for the next page; they are in `total` alone. outliers: so many are
    named, at most. prompts: by the version of a call's prompt, whatever `by` says.
    """

    requester: RequesterClaim
    by: SpendBy
    prompts: Annotated[bool, Field(exclude_if=operator.not_)] = False
    since_s: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_S)]
    top: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_ROWS)] = 20
    of_task: bool = False
    slices: Annotated[int, Field(ge=0, le=bounds.MAX_SPEND_SLICES)] = 0
    tasks: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_SPEND_ROWS)] = ()
    skip: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    outliers: Annotated[int, Field(ge=0, le=bounds.MAX_SPEND_OUTLIERS, exclude_if=operator.not_)] = 0


UsageClass = Annotated[Count, Field(exclude_if=operator.not_)]
"""Tokens of a class, as in `Usage`; left out where there are none."""


class Spent(Contract):
    """A sum over calls. input_tokens and output_tokens are the providers' own counts; cached_input_tokens: of the
    input, what providers read from their caches.

    estimated: calls whose use no provider told, fully or in part; estimated_tokens and estimated_usd_micros of the sums
    are estimates. tokens: input and output, and the reservations of calls of which nothing is known.
    failed_calls: attempts that brought no answer (retries and fallbacks followed, or an error); failed_usd_micros: what
    they cost, within cost_usd_micros. failed_ms: what they took, with the pause before the next attempt.
    """

    calls: Count = 0
    estimated: Count = 0
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    output_tokens: Count = 0
    tokens: Count = 0
    cost_usd_micros: Count = 0
    model_calls: Count = 0
    tool_calls: Count = 0
    wall_ms: Count = 0
    estimated_tokens: Count = 0
    estimated_usd_micros: Count = 0
    failed_calls: Count = 0
    failed_usd_micros: Count = 0
    failed_ms: Count = 0
    reasoning_tokens: UsageClass = 0
    cache_write_tokens: UsageClass = 0
    cache_write_1h_tokens: UsageClass = 0
    input_audio_tokens: UsageClass = 0
    cached_audio_tokens: UsageClass = 0
    input_image_tokens: UsageClass = 0
    output_audio_tokens: UsageClass = 0
    output_image_tokens: UsageClass = 0


class SpendRow(Contract):
    """Spending under one name, and what is held for calls that have not settled. "": without a name. p50_ms, p95_ms:
    percentiles of the time that calls took with all of their attempts, failed ones too; 0 where none is known."""

    name: Annotated[str, Field(max_length=200)] = ""
    spent: Spent = Spent()
    held: Spent = Spent()
    p50_ms: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    p95_ms: Annotated[Count, Field(exclude_if=operator.not_)] = 0


class SpendOutlier(Contract):
    """A task, step or call that cost, or whose calls took, many times the median of its kind.

    amount, median: in `unit`. resource: the model or tool of a call.
    """

    kind: Literal["task", "step", "model_call", "tool_call"]
    unit: Literal["cost_usd_micros", "wall_ms"]
    task: Token
    step_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    call_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    resource: Annotated[str, Field(max_length=200)] = ""
    amount: Count
    median: Count


class SpendReplied(Body, type="mesh.budget.spend_replied"):
    """Rows, the dearest first; `rest` sums the other rest_rows; `total` is all of them.

    late: settled since then, of calls that were admitted before: in no row, for their time is another. kept_unix_ms:
    tasks that ended before it may have been purged, and what they spent is kept by day and month, not by name. slices:
    cost in micro US dollars, spent and held, of the calls of each part of the time, the oldest first; call_slices:
    their number. outliers: those furthest above their median first.
    """

    by: SpendBy = "tenant"
    since_unix_ms: UnixMs = 0
    until_unix_ms: UnixMs = 0
    kept_unix_ms: UnixMs = 0
    rows: Annotated[tuple[SpendRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)] = ()
    rest: SpendRow = SpendRow()
    rest_rows: Count = 0
    total: SpendRow = SpendRow()
    late: Spent = Spent()
    slices: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_SPEND_SLICES)] = ()
    call_slices: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_SPEND_SLICES, exclude_if=operator.not_)] = ()
    outliers: Annotated[
        tuple[SpendOutlier, ...], Field(max_length=bounds.MAX_SPEND_OUTLIERS, exclude_if=operator.not_)
    ] = ()
    failure: Failure | None = None
