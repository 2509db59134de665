"""Every message of the mesh: one row each, and the codec that reads any version of it.

The broker's permissions, the AsyncAPI document and the services' READMEs are rendered from these rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from bulkhead_contracts import (
    agent,
    approval,
    bounds,
    budget,
    control,
    delegation,
    evaluation,
    event,
    grant,
    identity,
    journal,
    lease,
    model,
    outside_event,
    peer,
    plan,
    prompt,
    push,
    rating,
    retrieval,
    session,
    step,
    subjects,
    task,
    tool,
    verdict,
    workflow,
)

from .settlement import DoerReply
from .task.v1 import TaskRequestedV1
from .task.v2 import upcast_task_requested
from .types import Body
from .wording import describe_error

Plane = Literal["mesh", "rpc", "events"]
PUBLISHER = "publisher"
"""Stands in rows for every outside publisher (`pub_<name>` on the wire)."""
SUBSCRIBER = "subscriber"
"""Stands in rows for every outside subscriber (`sub_<name>`)."""
OUTSIDE_WORKER = "outside_worker"
"""Stands in rows for every program outside that carries out steps (`wrk_<name>`)."""
JOURNAL = "journal"

DECIDERS = ("planner", "worker", "checker")
DOERS = ("model_gateway", "rag", "tool_executor")
EDGES = ("gateway", "signer", "budget", "registry", "doors")
SERVICES = (*DECIDERS, *DOERS, *EDGES)
"""Those of every mesh."""
IN_KUBERNETES = ("identity",)
"""Edges that run in Kubernetes alone."""
EVERY_SERVICE = (*SERVICES, *IN_KUBERNETES)
WITHOUT_INBOX = ("signer", "registry")
"""They are asked, and nothing is stored for them."""


class DecodeError(ValueError):
    """A message that cannot be read. `later` tells that a newer reader might: hand it back, do not reject."""

    def __init__(self, code: str, message: str, *, later: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.later = later


@dataclass(frozen=True, slots=True)
class Row:
    """Route of one message type. `edges` are (producer, consumer) pairs; `older` maps versions to (class,
    upcast).
    """

    body: type[Body]
    edges: tuple[tuple[str, str], ...]
    owner: str
    plane: Plane = "mesh"
    older: dict[int, tuple[type[Body], Callable[[Any], Body]]] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """Type without version."""
        return self.body.TYPE


def _edges_to(receiver: str, *senders: str) -> tuple[tuple[str, str], ...]:
    return tuple((sender, receiver) for sender in senders)


def _edges_from(sender: str, *receivers: str) -> tuple[tuple[str, str], ...]:
    return tuple((sender, receiver) for receiver in receivers)


ROWS: tuple[Row, ...] = (
    # The edge
    Row(
        task.TaskRequested,
        _edges_to("gateway", PUBLISHER, "gateway", "doors"),
        "gateway",
        older={1: (TaskRequestedV1, upcast_task_requested)},
    ),
    Row(
        task.TaskCancelRequested,
        (*_edges_to("gateway", PUBLISHER, "gateway"), *_edges_to("planner", "gateway")),
        "gateway",
    ),
    Row(task.TaskRejected, _edges_from("gateway", "gateway", "doors"), "gateway"),
    Row(task.TaskQueued, _edges_from("gateway", "gateway", "doors"), "gateway"),
    Row(task.PlaceReturned, _edges_to("gateway", "doors"), "doors"),
    Row(task.PlaceTaken, _edges_to("gateway", "doors"), "doors"),
    Row(task.PlaceGranted, _edges_from("gateway", "doors"), "gateway"),
    Row(control.SessionEnded, _edges_to("gateway", "gateway"), "gateway"),
    Row(task.PlacesGiven, _edges_to("gateway", "gateway"), "gateway"),
    Row(task.TaskReleased, _edges_to("gateway", "gateway"), "gateway"),
    Row(grant.GrantRequested, _edges_to("signer", "gateway"), "signer", plane="rpc"),
    Row(grant.GrantReplied, _edges_from("signer", "gateway"), "signer", plane="rpc"),
    Row(grant.VouchRequested, _edges_to("signer", "gateway", "doors"), "signer", plane="rpc"),
    Row(grant.VouchReplied, _edges_from("signer", "gateway", "doors"), "signer", plane="rpc"),
    Row(grant.ToolsRequested, _edges_to("signer", "doors"), "signer", plane="rpc"),
    Row(grant.ToolsReplied, _edges_from("signer", "doors"), "signer", plane="rpc"),
    Row(task.TaskSubmitted, _edges_to("planner", "gateway"), "gateway"),
    Row(plan.PlanDecided, _edges_to("planner", "gateway"), "gateway"),
    # What the planner tells the edge
    Row(task.TaskAccepted, _edges_from("planner", "gateway"), "planner"),
    Row(plan.PlanRejected, _edges_from("planner", "gateway"), "planner"),
    Row(plan.PlanProposed, _edges_from("planner", "gateway"), "planner"),
    Row(plan.PlanAdopted, _edges_from("planner", "gateway"), "planner"),
    Row(task.StepStarted, _edges_from("planner", "gateway"), "planner"),
    Row(task.StepEnded, _edges_from("planner", "gateway"), "planner"),
    Row(task.Progressed, _edges_from("planner", "gateway"), "planner"),
    Row(task.TaskPaused, _edges_from("planner", "gateway"), "planner"),
    Row(
        task.TaskEnded,
        (*_edges_to("gateway", "planner", "gateway"), *_edges_to("doors", "planner", "gateway")),
        "planner",
    ),
    Row(task.TaskStopped, _edges_from("planner", "budget"), "planner"),
    # Steps
    Row(step.StepAssigned, _edges_from("planner", "worker", "doors"), "planner"),
    Row(step.StepCancelRequested, (*_edges_from("planner", "worker", "doors"), ("worker", "doors")), "planner"),
    Row(step.StepProposed, _edges_from("worker", "checker"), "worker"),
    Row(step.StepFinished, _edges_to("planner", "worker", "doors"), "worker"),
    Row(step.StepPaused, _edges_to("planner", "worker", "checker", "doors"), "planner"),
    Row(step.StepExtended, _edges_from("planner", "worker", "checker", "doors"), "planner"),
    Row(step.DelegationRequested, _edges_from("worker", "doors"), "doors"),
    Row(step.DelegationReplied, _edges_from("doors", "worker"), "doors"),
    Row(step.StepTaken, _edges_to("doors", "doors"), "doors"),
    Row(tool.WriteNoted, _edges_to("doors", "doors"), "doors"),
    Row(step.StepAnswered, _edges_to("doors", "doors"), "doors"),
    Row(delegation.StepTakeRequested, _edges_to("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(delegation.StepTakeReplied, _edges_from("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(delegation.StepBeatRequested, _edges_to("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(delegation.StepBeatReplied, _edges_from("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(delegation.StepAnswerRequested, _edges_to("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(delegation.StepAnswerReplied, _edges_from("doors", OUTSIDE_WORKER), "doors", plane="rpc"),
    Row(verdict.VerdictReached, _edges_from("checker", "planner"), "checker"),
    # Steps with each other
    Row(peer.AnswerRequested, (("worker", "planner"), ("planner", "worker")), "planner"),
    Row(peer.AnswerGiven, (("worker", "planner"), ("planner", "worker")), "planner"),
    Row(lease.LeaseRequested, _edges_from("worker", "planner"), "planner"),
    Row(lease.LeaseReleaseRequested, _edges_from("worker", "planner"), "planner"),
    Row(lease.LeaseQueued, _edges_from("planner", "worker"), "planner"),
    Row(lease.LeaseGranted, _edges_from("planner", "worker"), "planner"),
    Row(lease.LeaseEnded, _edges_from("planner", "worker"), "planner"),
    Row(lease.LeaseRefused, _edges_from("planner", "worker"), "planner"),
    # Events from outside
    Row(outside_event.EventPublished, _edges_to("gateway", PUBLISHER, "gateway"), "gateway"),
    Row(outside_event.EventOccurred, _edges_from("gateway", "planner"), "gateway"),
    Row(outside_event.EventAwaited, _edges_from("planner", "planner"), "planner"),
    Row(outside_event.EventMatched, (("planner", "gateway"), ("gateway", "planner")), "planner"),
    Row(agent.WaitRefused, _edges_from("budget", "worker"), "budget"),
    Row(agent.AgentWarned, _edges_from("budget", "worker", "doors"), "budget"),
    # Calls outward
    Row(model.ModelCallRequested, _edges_to("model_gateway", *DECIDERS, "doors"), "model_gateway"),
    Row(model.ModelCallReplied, _edges_from("model_gateway", *DECIDERS, "doors"), "model_gateway"),
    Row(model.ModelsRequested, _edges_to("model_gateway", "doors"), "model_gateway", plane="rpc"),
    Row(model.ModelsReplied, _edges_from("model_gateway", "doors"), "model_gateway", plane="rpc"),
    Row(tool.ToolCallRequested, _edges_to("tool_executor", "worker", "doors"), "tool_executor"),
    Row(tool.ToolCallCancelRequested, _edges_to("tool_executor", "worker"), "tool_executor"),
    Row(tool.ToolCallReplied, _edges_from("tool_executor", "worker", "doors"), "tool_executor"),
    Row(tool.WriteDoubted, _edges_from("tool_executor", "gateway"), "tool_executor"),
    Row(tool.WriteResolveRequested, _edges_to("tool_executor", "gateway"), "tool_executor"),
    Row(tool.WriteResolved, _edges_from("tool_executor", "gateway"), "tool_executor"),
    Row(tool.WritesRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(tool.WritesReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(tool.CitedCallRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(tool.CitedCallReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(tool.ToolListRequested, _edges_to("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(tool.ToolListReplied, _edges_from("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(tool.ToolDetailRequested, _edges_to("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(tool.ToolDetailReplied, _edges_from("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(tool.PolicyTrialRequested, _edges_to("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(tool.PolicyTrialReplied, _edges_from("tool_executor", "gateway"), "tool_executor", plane="rpc"),
    Row(retrieval.RetrievalRequested, _edges_to("rag", "worker", "doors"), "rag"),
    Row(retrieval.RetrievalForeseen, _edges_from("planner", "worker"), "planner"),
    Row(retrieval.RetrievalReplied, _edges_from("rag", "worker", "doors"), "rag"),
    Row(journal.TaskMessagesRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(journal.TaskMessagesReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(retrieval.DocumentIngestRequested, _edges_to("rag", "gateway"), "rag"),
    Row(retrieval.DocumentIngested, _edges_from("rag", "gateway"), "rag"),
    Row(retrieval.DocumentDeleteRequested, _edges_to("rag", "gateway"), "rag"),
    Row(retrieval.DocumentDeleted, _edges_from("rag", "gateway"), "rag"),
    Row(retrieval.DocumentsRequested, _edges_to("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.DocumentsReplied, _edges_from("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.PassageRequested, _edges_to("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.PassageReplied, _edges_from("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.DocumentChunksRequested, _edges_to("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.DocumentChunksReplied, _edges_from("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.DocumentSearchRequested, _edges_to("rag", "gateway"), "rag", plane="rpc"),
    Row(retrieval.DocumentSearchReplied, _edges_from("rag", "gateway"), "rag", plane="rpc"),
    Row(
        control.CallDeferred,
        (
            *_edges_from("model_gateway", *DECIDERS, "doors"),
            *_edges_from("tool_executor", "worker", "doors"),
            *_edges_from("rag", "worker", "doors"),
            ("doors", "worker"),
        ),
        "runtime",
    ),
    Row(
        control.CallResumed,
        (
            *_edges_from("model_gateway", *DECIDERS, "doors"),
            *_edges_from("tool_executor", "worker", "doors"),
            *_edges_from("rag", "worker", "doors"),
            ("doors", "worker"),
        ),
        "runtime",
    ),
    # Approvals
    Row(approval.ApprovalRequested, _edges_from("tool_executor", "gateway", "tool_executor"), "tool_executor"),
    Row(approval.ApprovalEnded, _edges_from("tool_executor", "gateway"), "tool_executor"),
    Row(approval.DecideRequested, _edges_to("gateway", PUBLISHER, "gateway"), "gateway"),
    Row(approval.SignatureRequested, _edges_to("signer", "gateway"), "signer", plane="rpc"),
    Row(approval.SignatureReplied, _edges_from("signer", "gateway"), "signer", plane="rpc"),
    Row(approval.ApprovalDecided, _edges_from("gateway", "tool_executor"), "gateway"),
    # Money
    Row(budget.ReserveRequested, _edges_to("budget", *DOERS), "budget", plane="rpc"),
    Row(budget.ReserveReplied, _edges_from("budget", *DOERS), "budget", plane="rpc"),
    Row(budget.AllowanceRequested, _edges_to("budget", "doors"), "budget", plane="rpc"),
    Row(budget.AllowanceReplied, _edges_from("budget", "doors"), "budget", plane="rpc"),
    Row(budget.Reserved, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.ReservedTogether, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.Settled, _edges_to("budget", *DOERS), "budget"),
    Row(budget.LedgerMarked, (("budget", "budget"), ("budget", JOURNAL)), "budget"),
    Row(budget.Tripped, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.TaskHalted, _edges_from("budget", "planner"), "budget"),
    Row(budget.TaskCharged, _edges_from("budget", "gateway"), "budget"),
    Row(budget.Alerted, _edges_from("budget", JOURNAL, "gateway"), "budget"),
    Row(budget.NoticeRequested, _edges_from("budget", "tool_executor", "gateway"), "budget"),
    Row(budget.Overran, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.LimitsRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.LimitsReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.LimitsChanged, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.TopUpRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.TopUpReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.SpendRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.SpendReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.CallsRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.CallsReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.CoordinationRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.CoordinationReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DeadLettersRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DeadLettersReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DeadLetterRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DeadLetterReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DismissalRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.DismissalReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.MeshRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.MeshReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.SubscribersRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.SubscribersReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(budget.LedgerPart, _edges_from("budget", JOURNAL), "budget"),
    Row(budget.LedgerCheckpointed, _edges_from("budget", JOURNAL), "budget"),
    # Halts by people
    Row(control.HaltRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(control.HaltReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(control.Switched, _edges_from("budget", JOURNAL), "budget"),
    Row(control.ResetRequested, _edges_to("budget", "gateway"), "budget", plane="rpc"),
    Row(control.ResetReplied, _edges_from("budget", "gateway"), "budget", plane="rpc"),
    Row(control.BreakerReset, _edges_from("budget", JOURNAL), "budget"),
    # Prompts
    Row(prompt.PromptsRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.PromptsReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.PromptPublishRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.PromptPublishReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.ReleasesRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.ReleasesReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.ReleaseMoveRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(prompt.ReleaseMoveReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(evaluation.EvaluationRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(evaluation.EvaluationReported, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(evaluation.EvaluationReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(evaluation.EvaluationsRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(evaluation.EvaluationsReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    # Workflows
    Row(workflow.WorkflowActRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(workflow.WorkflowActReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    Row(workflow.WorkflowsRequested, _edges_to("registry", "gateway"), "registry", plane="rpc"),
    Row(workflow.WorkflowsReplied, _edges_from("registry", "gateway"), "registry", plane="rpc"),
    # Events for programs outside
    *(
        Row(body, _edges_from("gateway", SUBSCRIBER), "gateway", plane="events")
        for body in (
            event.TaskAcceptedEvent,
            event.StepEndedEvent,
            event.TaskEndedEvent,
            event.ApprovalRequestedEvent,
            event.BudgetAlertEvent,
            event.TaskHaltedEvent,
        )
    ),
    Row(event.EventPostRequested, _edges_from("gateway", "tool_executor"), "gateway"),
    # Push notifications of A2A
    Row(push.PushConfigSet, _edges_to("gateway", "gateway"), "gateway"),
    Row(push.PushConfigDeleted, _edges_from("gateway", "gateway", "tool_executor"), "gateway"),
    Row(push.PushPostRequested, _edges_from("gateway", "tool_executor"), "gateway"),
    Row(push.PushEnded, _edges_from("tool_executor", "gateway"), "tool_executor"),
    # Ratings
    Row(rating.TaskRated, _edges_to("gateway", "gateway"), "gateway"),
    # Sessions
    *(
        Row(body, _edges_to("gateway", "gateway"), "gateway")
        for body in (session.SessionOpened, session.TurnTaken, session.FactPinned, session.SessionDeleted)
    ),
    # Logins by workload identity
    Row(identity.LoginDecided, _edges_from("identity", JOURNAL), "identity"),
    # The runtime: each service to itself
    Row(control.TimerFired, tuple((name, name) for name in DECIDERS), "runtime"),
    Row(control.MessageRejected, tuple((name, name) for name in SERVICES if name not in WITHOUT_INBOX), "runtime"),
)

BY_TYPE: dict[str, Row] = {row.type: row for row in ROWS}
EVENTS: dict[str, Row] = {row.type.removeprefix("event."): row for row in ROWS if row.plane == "events"}
"""By their names: `task.ended`."""
INBOXES: tuple[str, ...] = tuple(sorted({to for row in ROWS if row.plane == "mesh" for _, to in row.edges}))
COUNTED_STREAMS: tuple[str, ...] = (
    *(subjects.inbox_stream(one) for one in INBOXES),
    *(subjects.records_stream(one) for one in DOERS),
    subjects.BLOBS_STREAM,
    subjects.DEAD_LETTERS_STREAM,
)
"""Streams that refuse what does not fit: somebody has to know how full they are."""
MESH_EDGES: frozenset[tuple[str, str]] = frozenset(e for row in ROWS if row.plane == "mesh" for e in row.edges)
SETTLEMENT_EDGES: tuple[tuple[str, str], ...] = tuple(
    sorted({edge for row in ROWS if issubclass(row.body, DoerReply) for edge in row.edges if edge[0] in DOERS})
)
"""(doer, asker) where settlements travel in replies; nobody else's word about them counts."""
RPC_EDGES: frozenset[tuple[str, str]] = frozenset(
    e for row in ROWS if row.plane == "rpc" and row.body.TYPE.endswith("requested") for e in row.edges
)


def askers_of(doer: str) -> frozenset[str]:
    """Services in whose inboxes the outcomes of a doer's calls lie."""
    return frozenset(asker for sender, asker in SETTLEMENT_EDGES if sender == doer)


def is_allowed(ce_type: str, sender: str, receiver: str) -> bool:
    """True if the catalog lets `sender` say this to `receiver`; outside publishers are `pub_*`, workers `wrk_*`."""
    row = BY_TYPE.get(ce_type.rpartition(".v")[0])
    role = {"pub_": PUBLISHER, "wrk_": OUTSIDE_WORKER}.get(sender[:4], sender)
    return row is not None and (role, receiver) in row.edges


def decode_body(ce_type: str, body: bytes) -> Body:
    """Read a body of any known version as the latest one.

    Raises DecodeError; its `later` is true for unknown types and versions (an upgraded replica may know them).
    """
    name, _, version_text = ce_type.rpartition(".v")
    row = BY_TYPE.get(name)
    # isdecimal alone takes digits of any script, and isdigit what int() does not read.
    if row is None or not (version_text.isascii() and version_text.isdecimal() and len(version_text) < 9):
        raise DecodeError("unknown_type", f"this reader knows no message type {ce_type[:100]!r}", later=True)
    if len(body) > bounds.MAX_MESSAGE_BYTES:
        raise DecodeError("oversize", f"body of {len(body)} bytes exceeds {bounds.MAX_MESSAGE_BYTES}")
    version = int(version_text)
    try:
        if version == row.body.VERSION:
            return row.body.model_validate_json(body)
        if version in row.older:
            old, upcast = row.older[version]
            return upcast(old.model_validate_json(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise DecodeError("malformed_body", f"{ce_type}: {where}: {describe_error(first)}") from error
    raise DecodeError(
        "unknown_version",
        f"{name} v{version} is unknown here (this reader knows up to v{row.body.VERSION}); upgrade the receiver",
        later=version > row.body.VERSION,
    )
