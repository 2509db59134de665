"""Shapes of the HTTP API for approvals."""

from typing import Annotated, Self, get_args

from pydantic import Field

from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested, Decision
from bulkhead_contracts.types import Contract, Count, Sha256
from bulkhead_services.gateway.http.operator_schemas import ReasonInput
from bulkhead_services.gateway.http.schemas import STRICT
from bulkhead_services.gateway.read_model.approvals import ApprovalRow, State

STATES = (*get_args(State), "all")


class ApprovalDocument(Contract):
    """A call that waits for a person's word, or did. state `expired`: nobody decided in time; `abandoned`: its task
    ended before. request: the call as it is made if it is granted, and in no other way; end: who decided, and why; null
    while it waits."""

    approval_id: str
    task_id: str
    state: State
    request: ApprovalRequested
    end: ApprovalEnded | None = None

    @classmethod
    def from_row(cls, row: ApprovalRow, now_unix_ms: int) -> Self:
        """A row as people see it."""
        return cls(
            approval_id=row.request.approval_id,
            task_id=row.task,
            state=row.state_at(now_unix_ms),
            request=row.request,
            end=row.ended,
        )


class ApprovalPage(Contract):
    """Approvals, the newest first. more: how many are not listed."""

    approvals: Annotated[tuple[ApprovalDocument, ...], Field(max_length=200)]
    more: Count = 0


class DecisionSubmission(Contract):
    """Body of POST /v1/approvals/{approval_id}. arguments_sha256: of the request that was read: the decision is about
    that call and no other."""

    model_config = STRICT

    decision: Decision
    arguments_sha256: Sha256
    reason: ReasonInput = "no reason was given"
