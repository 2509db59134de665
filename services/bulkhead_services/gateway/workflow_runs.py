"""Runs of workflows: a published version and values become the request of a task.

In: a version with all that it nests, values, who asks. Out: a `TaskRequested` with a plan, under the version's name.
"""

from collections.abc import Iterable, Mapping

from bulkhead.workflows.compose import compose_run
from bulkhead_contracts.plan import Plan
from bulkhead_contracts.task import RequesterClaim, TaskLimits, TaskRequested
from bulkhead_contracts.task_options import WrittenBy
from bulkhead_contracts.workflow import WorkflowVersion


def build_request(
    version: WorkflowVersion,
    nested: Iterable[WorkflowVersion],
    values: Mapping[str, str],
    claim: RequesterClaim,
    *,
    payload_sha256: str,
    limits: TaskLimits | None = None,
    conversation: str = "",
    chosen_by: str = "",
    written_by: WrittenBy = "person",
) -> TaskRequested:
    """The request of a run, which no model plans. limits: that are set lower the version's.
    chosen_by: side of the canary by which the version was chosen. Raises ComposeError."""
    content = version.content
    run = compose_run(content, values, {inner.ref: inner.content for inner in nested})
    lowered = content.limits
    if limits is not None:
        lowered = lowered.model_copy(
            update={name: min(getattr(limits, name), getattr(lowered, name)) for name in limits.model_fields_set}
        )
    options = content.pick_options() | {
        "workflow": version.ref,
        "conversation": conversation,
        "replan": "none",
        "written_by": "model" if claim.agent else written_by,
    }
    return TaskRequested(
        objective=run.objective,
        limits=lowered,
        **options,
        plan=Plan(steps=run.steps),
        workflow_steps=tuple(step.id for step in run.steps if step.id in run.fixed),
        workflow_release=chosen_by,
        requester=claim,
        payload_sha256=payload_sha256,
    )
