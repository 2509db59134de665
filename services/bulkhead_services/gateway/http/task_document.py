"""Tasks as the HTTP API shows them.

In: a feed and the publishers' policy. Out: the JSON shapes of schemas.py.
"""

from collections.abc import Mapping

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs, summarise
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import WritesReplied
from bulkhead_services.gateway.http.schemas import (
    PauseDocument,
    QueueDocument,
    SpendingDocument,
    StepDocument,
    TaskDocument,
    TaskSummary,
)
from bulkhead_services.gateway.read_model.feeds import InboxFeed
from bulkhead_services.gateway.read_model.task_view import ENDED, TaskView, requester_of, spent_more, whole_cost
from bulkhead_services.gateway.settings import PublisherSettings

Policies = Mapping[str, PublisherSettings]
NONE = WritesReplied()


def find_requester(feed: InboxFeed, policies: Policies) -> RequesterClaim | None:
    """The requester; for an outside publisher by today's policy."""
    if feed.view.requester is not None or feed.opening is None:
        return feed.view.requester
    claim = requester_of(feed.opening, policies)
    return claim if isinstance(claim, RequesterClaim) else None


def summarize_task(feed: InboxFeed, policies: Policies) -> TaskSummary:
    """One row of a list."""
    view, claim, cost = feed.view, find_requester(feed, policies), whole_cost(feed.view)
    return TaskSummary(
        task_id=feed.task,
        kind=view.kind,
        status=view.status,
        objective=summarise(view.request.objective) if view.request else "",
        created_unix_ms=view.created_unix_ms,
        updated_unix_ms=view.updated_unix_ms,
        person=claim.person if claim else "",
        cost_usd_micros=(cost or view.usage).cost_usd_micros,
        estimated_usd_micros=(cost or view.usage).estimated_usd_micros,
        standing=view.result.standing if view.result else None,
        complete=view.result.completeness.complete if view.result else None,
        failure_code=view.failure.code if view.failure else "",
        conversation=view.request.conversation if view.request else "",
        feature=view.request.feature if view.request else "",
        pause_code=view.pause.code if view.pause else "",
        fork_of=_fork_of(view),
    )


async def describe_task(
    feed: InboxFeed,
    blobs: Blobs,
    policies: Policies,
    queue: QueueDocument | None = None,
    doubtful: WritesReplied | None = NONE,
    spending: SpendingDocument | None = None,
) -> TaskDocument:
    """Everything about one task; queue: how it waits for a place, if it does; doubtful: writes that may or may not have
    been done, None where they cannot be told; spending: of a run that goes on. Raises BusError."""
    view = feed.view
    request = view.request
    answer = None
    if view.result is not None and view.result.content is not None:
        try:
            answer = await blobs.get_text(feed.tenant, view.result.content)
        except (BlobMissing, BlobCorrupt):
            answer = None  # It may have expired; the result still says what it was.
    steps = tuple(StepDocument.model_validate(step, from_attributes=True) for step in view.steps.values())
    until = view.updated_unix_ms
    return TaskDocument(
        task_id=feed.task,
        kind=view.kind,
        status=view.status,
        objective=request.objective if request else "",
        requester=find_requester(feed, policies),
        limits=request.limits if request else None,
        created_unix_ms=view.created_unix_ms,
        updated_unix_ms=until,
        deadline_unix_ms=view.deadline_unix_ms,
        duration_ms=max(0, until - view.created_unix_ms) if view.status in ENDED and view.created_unix_ms else 0,
        plan_version=view.plan_version,
        plans_rejected=view.plans_rejected,
        steps=steps,
        steps_done=view.ended.steps_done if view.ended else sum(s.status == "accepted" for s in steps),
        steps_total=view.ended.steps_total if view.ended else len(steps),
        failure=view.failure,
        result=view.result,
        answer=answer,
        usage=view.usage,
        spent_more=spent_more(view),
        charged=whole_cost(view),
        spending=spending,
        standing=view.result.standing if view.result else None,
        complete=view.result.completeness.complete if view.result else None,
        queue=queue,
        pause=_pause_document(view),
        tools_left_out=view.left_out,
        uncertain_writes=doubtful.writes if doubtful is not None else None,
        more_uncertain_writes=doubtful.more if doubtful is not None else 0,
        fork_of=_fork_of(view),
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
