"""Changes of tasks since v1: a request carries limits in integers, documents, an own plan, and a check switch."""

import operator
from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..plan.v1 import Plan
from ..result import Failure
from ..task_options import TaskOptions
from ..types import Body, Name, Sha256, Token, WorkflowReleaseRef, order_fields
from .v1 import ForkOf, Objective, RequesterClaim, SessionTurn, TaskLimits, TaskRequestedV1


@order_fields(
    "objective limits tools check plan requester payload_sha256 fork feature workflow delivery route replan voucher "
    "turn workflow_steps workflow_release unfit"
)
class TaskRequested(TaskOptions, Body, type="mesh.task.requested", version=2):
    """Asks the mesh for an objective. `requester` counts only when the gateway itself wrote it.

    payload_sha256 is of the HTTP body, so that a repeated Idempotency-Key with another body is found.
    voucher: the signer's word that it saw the requester's own token; "" where he has none. turn: of a session.
    workflow_steps: of `plan`, those whose texts are a published workflow's and hold no value of the requester.
    workflow_release: by which the version of the workflow was chosen. Of both only the gateway's own word counts.
    unfit: why an event from outside could not begin this run, which is rejected with it.
    """

    objective: Objective
    limits: TaskLimits = TaskLimits()
    plan: Plan | None = None
    requester: RequesterClaim | None = None
    payload_sha256: Sha256 | None = None
    fork: ForkOf | None = None
    voucher: Annotated[str, Field(max_length=bounds.MAX_VOUCHER_CHARS, exclude_if=operator.not_)] = ""
    turn: Annotated[SessionTurn | None, Field(exclude_if=operator.not_)] = None
    workflow_steps: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_PLAN_STEPS, exclude_if=operator.not_)] = ()
    workflow_release: Annotated[WorkflowReleaseRef, Field(exclude_if=operator.not_)] = ""
    unfit: Annotated[Failure | None, Field(exclude_if=operator.not_)] = None


class TaskRejected(Body, type="mesh.task.rejected"):
    """The gateway refused a request (who asked, limits, authority); kept so that the asker can read why."""

    code: Name
    message: Annotated[str, Field(max_length=bounds.MAX_REASON_CHARS)]
    hint: Annotated[str, Field(max_length=bounds.MAX_REASON_CHARS)] = ""


def upcast_task_requested(old: TaskRequestedV1) -> TaskRequested:
    """v1 -> v2: dollars become integer micros, seconds milliseconds; what v1 left out takes v2's default."""
    changes: dict[str, int] = {}
    if old.limit_usd is not None:
        changes["cost_usd_micros"] = round(old.limit_usd * 1_000_000)
    if old.deadline_s is not None:
        changes["deadline_ms"] = old.deadline_s * 1000
    return TaskRequested(objective=old.objective, limits=TaskLimits(**changes))
