"""Tasks as the HTTP API shows them.

In: a feed, the publishers' policy, and what budget tells beside it. Out: the documents of `bulkhead.gateway_api.tasks`.
The steps of an outside agent's run end with it, so that its own usage tells nothing before.
"""

import secrets
from collections.abc import Mapping, Sequence

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs, summarise
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.tasks import (
    PauseDocument,
    QueueDocument,
    SpendingDocument,
    StepDocument,
    TaskDocument,
    TaskSummary,
)
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import SpendReplied, SpendRequested, SpendRow
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.result import LabelKind
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import WritesReplied, WritesRequested
from bulkhead_services.gateway.read_model.feeds import LOOK_AGAIN_S, InboxFeed
from bulkhead_services.gateway.read_model.ratings.standing import count_ratings, describe_ratings, verdict_of
from bulkhead_services.gateway.read_model.task_view import (
    ENDED,
    TaskView,
    answer_of,
    release_of,
    requester_of,
    spent_more,
    whole_cost,
)
from bulkhead_services.gateway.settings import PublisherSettings

Policies = Mapping[str, PublisherSettings]
NONE = WritesReplied()
BADLY = frozenset({"failed", "cancelled", "halted"})
"""A write whose outcome is unknown ends its task, unless that ends in another way meanwhile."""
SPENDING_PATIENCE_S = 1.0
spending_log, writes_log = Log("gateway.spending"), Log("gateway.writes")


def find_requester(feed: InboxFeed, policies: Policies) -> RequesterClaim | None:
    """The requester; for an outside publisher by today's policy."""
    if feed.view.requester is not None or feed.opening is None:
        return feed.view.requester
    claim = requester_of(feed.opening, policies)
    return claim if isinstance(claim, RequesterClaim) else None


def summarize_task(feed: InboxFeed, policies: Policies) -> TaskSummary:
    """One row of a list."""
    view, claim, cost = feed.view, find_requester(feed, policies), whole_cost(feed.view)
    ratings = count_ratings(view.ratings)
    return TaskSummary(
        task_id=feed.task,
        kind=view.kind,
        status=view.status,
        objective=summarise(view.request.objective) if view.request else "",
        created_unix_ms=view.created_unix_ms,
        updated_unix_ms=view.updated_unix_ms,
        person=claim.person if claim else "",
        cost_usd_micros=(cost or view.usage).cost_usd_micros,
        held_usd_micros=None if has_open_cost(view) else 0,
        estimated_usd_micros=(cost or view.usage).estimated_usd_micros,
        duration_ms=_duration_ms(view),
        model_calls=view.usage.model_calls,
        tool_calls=view.usage.tool_calls,
        models=_label_sources(view, "model_reply"),
        tools=_label_sources(view, "tool_result"),
        standing=view.result.standing if view.result else None,
        complete=view.result.completeness.complete if view.result else None,
        answered=answer_of(view).answered,
        failure_code=view.failure.code if view.failure else "",
        conversation=view.request.conversation if view.request else "",
        feature=view.request.feature if view.request else "",
        workflow=view.request.workflow if view.request else "",
        pause_code=view.pause.code if view.pause else "",
        fork_of=_fork_of(view),
        result_summary=view.result.summary if view.result else "",
        citations=len(view.result.citations) if view.result else 0,
        release=release_of(view),
        rated=verdict_of(ratings),
        ratings=ratings,
    )


def has_open_cost(view: TaskView) -> bool:
    """True while the ledger alone knows what a task has cost: calls are under way, or were when it ended."""
    return view.status not in ENDED or spent_more(view)


def _duration_ms(view: TaskView) -> int:
    """Time from the request to the end; 0 while the task goes on."""
    is_over = view.status in ENDED and view.created_unix_ms
    return max(0, view.updated_unix_ms - view.created_unix_ms) if is_over else 0


def _label_sources(view: TaskView, kind: LabelKind) -> tuple[str, ...]:
    """Names of the models (behind that of their provider) or tools that the results of the task's steps rest on."""
    names = (name for of_kind, name in view.sources if of_kind == kind)
    return tuple(sorted({name.partition("/")[2] or name for name in names} if kind == "model_reply" else names))


async def describe_task(
    feed: InboxFeed,
    blobs: Blobs,
    policies: Policies,
    queue: QueueDocument | None = None,
    doubtful: WritesReplied | None = NONE,
    spending: SpendingDocument | None = None,
    *,
    reader: RequesterClaim,
) -> TaskDocument:
    """Everything about one task; queue: how it waits for a place, if it does; doubtful: writes that may or may not have
    been done, None where they cannot be told; spending: of a run that goes on; reader: who sees it. Raises BusError."""
    view, finding = feed.view, answer_of(feed.view)
    request = view.request
    answer = None
    if view.result is not None and view.result.content is not None:
        try:
            answer = await blobs.get_text(feed.tenant, view.result.content)
        except (BlobMissing, BlobCorrupt):
            answer = None  # It may have expired; the result still says what it was.
    steps = tuple(StepDocument.model_validate(step, from_attributes=True) for step in view.steps.values())
    return TaskDocument(
        task_id=feed.task,
        kind=view.kind,
        status=view.status,
        objective=request.objective if request else "",
        requester=find_requester(feed, policies),
        limits=request.limits if request else None,
        created_unix_ms=view.created_unix_ms,
        updated_unix_ms=view.updated_unix_ms,
        deadline_unix_ms=view.deadline_unix_ms,
        duration_ms=_duration_ms(view),
        plan_version=view.plan_version,
        plans_rejected=view.plans_rejected,
        steps=steps,
        steps_done=view.ended.steps_done if view.ended else sum(s.status == "accepted" for s in steps),
        steps_total=view.ended.steps_total if view.ended else sum(s.status != "skipped" for s in steps),
        failure=view.failure,
        result=view.result,
        answer=answer,
        usage=view.usage,
        spent_more=spent_more(view),
        charged=whole_cost(view),
        spending=spending,
        standing=view.result.standing if view.result else None,
        complete=view.result.completeness.complete if view.result else None,
        answered=finding.answered,
        answered_reason=finding.reason,
        queue=queue,
        pause=_pause_document(view),
        tools_left_out=view.left_out,
        uncertain_writes=doubtful.writes if doubtful is not None else None,
        more_uncertain_writes=doubtful.more if doubtful is not None else 0,
        fork_of=_fork_of(view),
        release=release_of(view),
        workflow_release=view.ended.workflow_release if view.ended is not None else "",
        ratings=describe_ratings(view.ratings, reader),
        events_url=f"/v1/tasks/{feed.task}/events",
        **(request.pick_options() if request else {}),
    )


def _fork_of(view: TaskView) -> str:
    return view.request.fork.task if view.request is not None and view.request.fork is not None else ""


def _pause_document(view: TaskView) -> PauseDocument | None:
    if view.pause is None:
        return None
    fields = view.pause.model_dump(include={"code", "reason", "step_id", "until_unix_ms"})
    return PauseDocument(since_unix_ms=view.paused_unix_ms, **fields)


async def find_spending(context: Context, claim: RequesterClaim, feed: InboxFeed) -> SpendingDocument | None:
    """Spending of an outside agent's run that goes on, as budget's ledger has it; None while it cannot be known."""
    if feed.view.kind != "adopted" or feed.view.status in ENDED:
        return None
    row = (await read_balances(context, claim, [feed.task])).get(feed.task)
    if row is None:
        return None
    return SpendingDocument(
        cost_usd_micros=row.spent.cost_usd_micros,
        tokens=row.spent.tokens,
        model_calls=row.spent.model_calls,
        tool_calls=row.spent.tool_calls,
        held_usd_micros=row.held.cost_usd_micros,
        held_tokens=row.held.tokens,
    )


async def read_balances(context: Context, claim: RequesterClaim, tasks: Sequence[str]) -> dict[str, SpendRow]:
    """Read what these tasks have spent and hold, by budget's ledger; without those that it does not tell, and none
    while it does not answer. tasks: at most MAX_SPEND_ROWS."""
    try:
        reply = await context.publisher.request(
            "budget",
            SpendRequested(requester=claim, by="task", since_s=1, top=1, of_task=True, tasks=tuple(tasks)),
            tenant=claim.tenant,
            task=tasks[0],
            index=f"spending/{secrets.token_hex(8)}",
            actor=claim.person,
            timeout_s=SPENDING_PATIENCE_S,
        )
    except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
        spending_log.warning("spending_not_told", task=tasks[0], reason=str(error))
        return {}
    assert isinstance(reply, SpendReplied)
    return {row.name: row for row in reply.rows}


async def find_uncertain_writes(context: Context, claim: RequesterClaim, feed: InboxFeed) -> WritesReplied | None:
    """Writes of a task that did not succeed, as budget finds them in the journal, and how many more there are; None
    while they cannot be known. Asked at most once in LOOK_AGAIN_S per task: replies may still arrive after its end.
    """
    if feed.view.status not in BADLY:
        return NONE
    now_unix_ms = context.clock()
    if feed.doubtful_writes is not None and now_unix_ms - feed.doubtful_writes[0] < LOOK_AGAIN_S * 1_000:
        return feed.doubtful_writes[1]
    try:
        reply = await context.publisher.request(
            "budget",
            WritesRequested(),
            tenant=feed.tenant,
            task=feed.task,
            index=f"writes/{secrets.token_hex(8)}",
            actor=claim.person,
            timeout_s=bounds.WRITES_TIMEOUT_MS / 1_000,
        )
    except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
        writes_log.warning("writes_not_told", task=feed.task, reason=str(error))
        return None
    assert isinstance(reply, WritesReplied)
    if reply.failure is not None:
        writes_log.warning("writes_not_told", task=feed.task, reason=reply.failure.message)
        return None
    feed.doubtful_writes = (now_unix_ms, reply)
    return reply
