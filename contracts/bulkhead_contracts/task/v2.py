"""Changes of tasks since v1: a request carries limits in integers, documents, an own plan, and a check switch."""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..output import Delivery
from ..plan.v1 import Plan
from ..types import Body, Constraints, Name, Sha256, Tag
from .v1 import ForkOf, Objective, Replan, RequesterClaim, TaskLimits, TaskRequestedV1, is_default_replan


def _is_empty(value: object) -> bool:
    """Not written then."""
    return not value


class TaskRequested(Body, type="mesh.task.requested", version=2):
    """Asks the mesh for an objective. `requester` counts only when the gateway itself wrote it.

    payload_sha256 is of the HTTP body, so that a repeated Idempotency-Key with another body is found.
    `tools`: names the task may use; empty means all of the tenant's that only read, its `default_writes`, and those
    that the steps of `plan` name. `feature`, `workflow`: of the product that asks; its spending is counted, and can be
    limited, under these names. delivery: at least as strict as this; the tenant's policy may be stricter.
    `route`: of the model gateway, for the calls of its planner and workers; "" is `default`. The judge keeps its own.
    voucher: the signer's word that it saw the requester's own token; "" where he has none.
    constraints: on the values of arguments, beside the tenant's (docs/how-to/policy.md).
    replan: what may take the place of `plan` when it fails; a plan that a model made is always replaced by another.
    conversation: the requester's name for tasks that belong together; shown beside the task, and nothing more.
    """

    objective: Objective
    limits: TaskLimits = TaskLimits()
    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    check: bool = True
    plan: Plan | None = None
    requester: RequesterClaim | None = None
    payload_sha256: Sha256 | None = None
    fork: ForkOf | None = None
    feature: Tag = ""
    workflow: Tag = ""
    delivery: Delivery | None = None
    route: Tag = ""
    replan: Annotated[Replan, Field(exclude_if=is_default_replan)] = "same_tools"
    voucher: Annotated[str, Field(max_length=bounds.MAX_VOUCHER_CHARS, exclude_if=_is_empty)] = ""
    constraints: Constraints = ()
    conversation: Annotated[Tag, Field(exclude_if=_is_empty)] = ""


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
