"""The view of a task, pure, and who an outside publisher is, and the ids of tasks.

In: messages of the gateway's own inbox, one task's, in stream order. Out: a view of that task; refusals
as values.

    requested --TaskRejected--> rejected
        |  TaskQueued: queued, until TaskReleased; or TaskEnded: cancelled | failed
        |  TaskAccepted
        v
     running --TaskEnded--> succeeded | failed | cancelled | halted
        |  TaskPaused: paused, until it goes on, or TaskEnded
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from bulkhead.flow import replace
from bulkhead.gateway_api.tasks import Status, StepStatus, TaskAnswered, TaskKind
from bulkhead.journal.pause_status import reword_failure
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.approval import DecideRequested
from bulkhead_contracts.budget import Amount, Charge, TaskCharged
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.output import Delivery
from bulkhead_contracts.outside_event import EventPublished
from bulkhead_contracts.plan import PlanAdopted, PlanProposed, PlanRejected
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.result import Answered, Failure, LabelKind, Result, Usage
from bulkhead_contracts.retrieval import DocumentDeleted, DocumentIngested
from bulkhead_contracts.task import (
    Dropped,
    RequesterClaim,
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskCancelRequested,
    TaskEnded,
    TaskPaused,
    TaskQueued,
    TaskRejected,
    TaskReleased,
    TaskRequested,
)
from bulkhead_services.gateway.read_model.ratings.standing import Ratings, apply_rated

ENDED: frozenset[str] = frozenset({"rejected", "succeeded", "failed", "cancelled", "halted"})
KNOWS_CALLERS = frozenset({"gateway", subjects.DOORS})
"""Services that callers show their keys and tokens to: their word about who asks counts."""


class PublisherIdentity(Protocol):
    """The person behind a publisher's key."""

    tenant: str
    person: str
    role: Literal["submitter", "operator"]
    agent: bool


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as people see it; attempts counts what was handed to workers."""

    step_id: str
    title: str = ""
    status: StepStatus = "waiting"
    attempts: int = 0
    plan_version: int = 1
    reasons: tuple[str, ...] = ()
    started_unix_ms: int = 0
    ended_unix_ms: int = 0
    usage: Usage = Usage()
    answered: Answered | None = None
    until_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class TaskView:
    """Fold of one task's messages. Driving: `status`; all else is reported. Times are the broker's."""

    status: Status = "unknown"
    request: TaskRequested | None = None
    request_id: str = ""
    request_sequence: int = 0
    requester: RequesterClaim | None = None
    created_unix_ms: int = 0
    updated_unix_ms: int = 0
    deadline_unix_ms: int = 0
    delivery: Delivery = "held"
    """What of the task's text may be shown, and when; nothing before the planner has said so."""
    left_out: tuple[str, ...] = ()
    """Tools that change something, and that the request did not name."""
    queued: TaskQueued | None = None
    queued_unix_ms: int = 0
    pause: TaskPaused | None = None
    paused_unix_ms: int = 0
    plan_version: int = 0
    plans_rejected: int = 0
    proposed: PlanProposed | None = None
    """The plan that waits for a person's word."""
    plan_sha256: str = ""
    """Digest of the steps of the plan that runs, where a person may skip one of them."""
    skippable: frozenset[str] = frozenset()
    steps: Mapping[str, StepView] = field(default_factory=dict)
    failure: Failure | None = None
    result: Result | None = None
    usage: Usage = Usage()
    sources: frozenset[tuple[LabelKind, str]] = frozenset()
    """Kind and name of what the results of its steps rest on, as their labels say."""
    ended: TaskEnded | None = None
    charged: TaskCharged | None = None
    ingested: DocumentIngested | None = None
    deleted: DocumentDeleted | None = None
    ratings: Ratings = field(default_factory=dict)

    @property
    def kind(self) -> TaskKind:
        """`planned` where the mesh carries it out, `adopted` where an outside agent does."""
        plan = self.request.plan if self.request is not None else None
        return "adopted" if plan is not None and any(step.adopted for step in plan.steps) else "planned"


def fold_message(view: TaskView, message: ReceivedMessage) -> TaskView:
    """The view after one more message. Early, late and repeated messages all have a place."""
    if isinstance(message.body, TaskCharged):
        return _apply_charged(view, message.body)  # What it cost, not what happened to it: its times stay.
    if isinstance(message.body, TaskRated):
        return replace(view, ratings=apply_rated(view.ratings, message.body))  # Nothing happened to it, either.
    after = _apply_message(view, message)
    if after.pause is not None and after.status == "running":
        after = replace(after, status="paused")  # Its other steps go on, or end, beside what is held back.
    return after if after is view else replace(after, updated_unix_ms=message.time_unix_ms)


def _apply_message(view: TaskView, message: ReceivedMessage) -> TaskView:
    body = message.body
    match body:
        case TaskRequested():
            return _apply_requested(view, message, body)
        case DocumentIngested():
            return replace(view, ingested=body)
        case DocumentDeleted():
            return replace(view, deleted=body)
        case StepEnded() if view.ended is not None:
            # Told with the end and stored after it. Its usage is in the task's already.
            return replace(_apply_step_ended(view, message, body), status=view.status, usage=view.usage)
        case _ if view.status in ENDED:
            # A task ends once; what comes later belongs to a race that it won.
            return view
        case TaskRejected():
            failure = Failure.from_text(body.code, body.message, body.hint)
            return replace(view, status="rejected", failure=failure)
        case MessageRejected():
            return _apply_message_rejected(view, body)
        case TaskQueued() if view.status == "requested":
            return replace(view, status="queued", queued=body, queued_unix_ms=message.time_unix_ms)
        case TaskReleased() if view.status == "queued":
            return replace(view, status="requested")
        case TaskAccepted():
            fields = {"deadline_unix_ms": body.deadline_unix_ms, "delivery": body.delivery, "left_out": body.left_out}
            return replace(view, status="running", **fields)  # type: ignore[arg-type]
        case TaskPaused():
            return _apply_paused(view, message, body)
        case PlanRejected():
            return replace(view, status="running", plans_rejected=view.plans_rejected + 1)
        case PlanProposed():
            return replace(view, status="running", proposed=body)
        case PlanAdopted():
            return _apply_plan_adopted(view, body)
        case StepStarted():
            return _apply_step_started(view, message, body)
        case StepEnded():
            return _apply_step_ended(view, message, body)
        case TaskEnded():
            task_failure = reword_failure(body.failure) if body.failure is not None else None
            view = replace(view, steps=_stop_running_steps(view, message), pause=None, proposed=None, ended=body)
            view = replace(view, sources=view.sources | _sources_of(body.result))
            return replace(view, status=body.status, failure=task_failure, result=body.result, usage=body.usage)
        case TaskCancelRequested():
            return view
        case _:
            return view


def _apply_paused(view: TaskView, message: ReceivedMessage, body: TaskPaused) -> TaskView:
    view = replace(view, status="running", deadline_unix_ms=body.deadline_unix_ms or view.deadline_unix_ms)
    if not body.active:
        return replace(view, pause=None, paused_unix_ms=0)
    return replace(view, pause=body, paused_unix_ms=view.paused_unix_ms or message.time_unix_ms)


def _apply_requested(view: TaskView, message: ReceivedMessage, body: TaskRequested) -> TaskView:
    if view.request is not None or not subjects.may_open(message.sender, message.task):
        return view  # The first request of a task is the one; a second is ignored.
    return replace(
        view,
        status="requested" if view.status == "unknown" else view.status,
        request=body,
        request_id=message.envelope.id,
        request_sequence=message.sequence,
        requester=body.requester if message.sender in KNOWS_CALLERS else None,
        created_unix_ms=message.time_unix_ms,
    )


def _apply_message_rejected(view: TaskView, body: MessageRejected) -> TaskView:
    if view.request is not None and view.request_sequence != body.sequence:
        return view  # A later message was unreadable; the task goes on without it.
    letter = f"the original is dead letter {body.dead_letter_id}" if body.dead_letter_id else "no dead letter is kept"
    hint = f"send it again, corrected, under a new task id; {letter}"
    return replace(view, status="rejected", failure=Failure.from_text(body.code, body.reason, hint))


def _apply_plan_adopted(view: TaskView, body: PlanAdopted) -> TaskView:
    steps: dict[str, StepView] = {}
    for step in body.plan.steps:
        step_view = view.steps.get(step.id, StepView(step.id))
        steps[step.id] = replace(step_view, title=_visible_title(view, step.title), plan_version=body.plan.version)
    skippable = frozenset(step.id for step in body.plan.steps if step.skippable)
    view = replace(view, skippable=skippable, plan_sha256=body.plan.steps_sha256 if skippable else "")
    return replace(view, status="running", plan_version=body.plan.version, proposed=None, steps=steps)


def _visible_title(view: TaskView, title: str) -> str:
    """A step's title as it may be shown: a model's words like any other."""
    return title if view.delivery == "draft" else ""


def _apply_step_started(view: TaskView, message: ReceivedMessage, body: StepStarted) -> TaskView:
    step_view = view.steps.get(body.step_id, StepView(body.step_id))
    title, since = (
        _visible_title(view, body.title) or step_view.title,
        step_view.started_unix_ms or message.time_unix_ms,
    )
    started = replace(
        step_view, title=title, status="running", attempts=step_view.attempts + 1, plan_version=body.plan_version
    )
    started = replace(started, started_unix_ms=since, ended_unix_ms=0, until_unix_ms=body.until_unix_ms)
    return replace(view, status="running", steps={**view.steps, body.step_id: started})


def _apply_step_ended(view: TaskView, message: ReceivedMessage, body: StepEnded) -> TaskView:
    step_view = view.steps.get(body.step_id, StepView(body.step_id))
    usage, ended_unix_ms = step_view.usage + body.usage, message.time_unix_ms
    ended = replace(step_view, status=body.outcome, reasons=body.reasons, plan_version=body.plan_version)
    answered = body.result.answered if body.result is not None else None
    ended = replace(ended, ended_unix_ms=ended_unix_ms, usage=usage, answered=answered, until_unix_ms=0)
    skipped = {
        name: replace(view.steps.get(name, StepView(name)), status="skipped", plan_version=body.plan_version)
        for name in body.skipped
    }
    view = replace(
        view, steps={**view.steps, body.step_id: ended, **skipped}, sources=view.sources | _sources_of(body.result)
    )
    return replace(view, status="running", usage=view.usage + body.usage)


def _sources_of(result: Result | None) -> frozenset[tuple[LabelKind, str]]:
    labels = result.provenance if result is not None else ()
    return frozenset((label.kind, label.source) for label in labels if label.kind in ("model_reply", "tool_result"))


def _stop_running_steps(view: TaskView, message: ReceivedMessage) -> dict[str, StepView]:
    """The steps when the task ends: nobody waits for those that run, and nothing will be told of them."""
    return {
        name: replace(step, status="stopped", ended_unix_ms=message.time_unix_ms) if step.status == "running" else step
        for name, step in view.steps.items()
    }


def _apply_charged(view: TaskView, body: TaskCharged) -> TaskView:
    """The latest word of budget stays; between two that count the same settlements, the one that holds less."""
    latest = view.charged
    if latest is not None and (latest.settled_calls, -latest.held.tokens, -latest.held.tool_calls) >= (
        body.settled_calls,
        -body.held.tokens,
        -body.held.tool_calls,
    ):
        return view
    return replace(view, charged=body)


class ViewedAnswer(NamedTuple):
    """Answer to whether a task is answered, and why not; None while it goes on."""

    answered: TaskAnswered | None = None
    reason: str = ""


def answer_of(view: TaskView) -> ViewedAnswer:
    """The answer of a task: one that has ended otherwise than well has none."""
    if view.result is not None and view.result.answered is not None:
        return ViewedAnswer(view.result.answered, view.result.answered_reason)
    if view.status not in ENDED:
        return ViewedAnswer()
    if view.status != "succeeded":
        return ViewedAnswer("no", view.failure.message if view.failure else "")
    return ViewedAnswer("unknown")


def release_of(view: TaskView) -> str:
    """The release whose prompts the task was given; "" for the shipped ones, and while it goes on."""
    return view.ended.release if view.ended is not None else ""


def whole_cost(view: TaskView) -> Charge | None:
    """The cost of a task that was ended early, once every call of it has settled."""
    if view.ended is None or view.charged is None or view.charged.held != Amount():
        return None
    return view.charged.charged


def spent_more(view: TaskView) -> bool:
    """True if calls may have been in the works when the task ended: their cost is not in its usage."""
    if whole_cost(view) is not None:
        return False
    if view.ended is None or view.status == "succeeded":
        return False
    cut_off = view.failure is not None and view.failure.code == "deadline_exceeded"
    return (
        cut_off
        or view.status in ("cancelled", "halted")
        or any(step.status == "stopped" for step in view.steps.values())
    )


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """A request that is not passed on, and why."""

    code: str
    message: str
    hint: str


def requester_of(
    message: ReceivedMessage, policies: Mapping[str, PublisherIdentity]
) -> RequesterClaim | RequestRefusal:
    """The asker, as gateway or doors wrote in a record of theirs; for a publisher as the policy says of its key.

    The body of an outside message is never asked: only the sender in the subject is enforced by the broker.
    """
    if message.sender in KNOWS_CALLERS:
        claim = (
            message.body.requester
            if isinstance(message.body, TaskRequested | DecideRequested | EventPublished)
            else None
        )
        if claim is None or claim.tenant != message.tenant:
            reason = "the recorded request names no requester of this tenant"
            return RequestRefusal("no_requester", reason, "submit the task again through POST /v1/tasks")
        return claim
    policy = policies.get(message.sender)
    if policy is None:
        hint = "add it to the gateway's publishers (tenant, person, role), or use a known identity"
        return RequestRefusal("unknown_publisher", f"no policy names the publisher {message.sender}", hint)
    if policy.tenant != message.tenant:
        reason = f"{message.sender} may not act for tenant {message.tenant}"
        return RequestRefusal("foreign_tenant", reason, f"publish under tenant {policy.tenant}")
    return RequesterClaim(
        tenant=policy.tenant, person=policy.person, role=policy.role, via="publisher", agent=policy.agent
    )


def never_begun(dropped: Dropped, now_unix_ms: int) -> TaskEnded:
    """The end of a task that never had a place to run."""
    if dropped.code == "cancelled":
        reason = dropped.reason or "it was cancelled while it waited"
        failure = Failure.from_text("cancelled", reason, "submit it again if it is wanted after all")
        return TaskEnded(status="cancelled", failure=failure, ended_unix_ms=now_unix_ms)
    hint = "submit it again when less waits, or have the quota's `running` or `wait_s` raised"
    reason = dropped.reason or "it waited for a place as long as its tenant's quota lets it"
    failure = Failure.from_text("queue_timeout", reason, hint)
    return TaskEnded(status="failed", failure=failure, ended_unix_ms=now_unix_ms)


class KeyedIds:
    """Ids of what people ask for. They are keyed, so that nobody else can compute, and occupy, an id to come.

    key: of the gateway alone, the same in all of its replicas.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"bulkhead-ids").digest()

    def task_id(self, tenant: str, person: str, idempotency_key: str) -> str:
        """The same key of the same person is the same task: 't' and 25 base32 characters."""
        return "t" + self._mac_chars("task", tenant, person, idempotency_key)

    def event_id(self, tenant: str, person: str, event_id: str) -> str:
        """The same id of the same person is the same event: 'e' and 25 base32 characters."""
        return "e" + self._mac_chars("event", tenant, person, event_id)

    def session_id(self, tenant: str, person: str, idempotency_key: str) -> str:
        """'s' and 25 base32 characters."""
        return "s" + self._mac_chars("session", tenant, person, idempotency_key)

    def deletion_id(self, tenant: str, name: str, key: str) -> str:
        """'x' and 25 base32 characters."""
        return "x" + self._mac_chars("delete", tenant, name, key)

    def ingestion_id(self, tenant: str, name: str, sha256: str, key: str = "") -> str:
        """The same content under the same name is the same ingestion: 'd' and 25 base32 characters."""
        return "d" + self._mac_chars("ingest", tenant, name, sha256, key)

    def _mac_chars(self, *parts: str) -> str:
        joined = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        digest = hashlib.blake2b(joined, digest_size=16, key=self._key, person=b"bulkhead-id").digest()
        return base64.b32encode(digest).decode().lower()[:25]
