"""Reads of workflows: which there are, and one version with its history."""

from typing import Annotated

from pydantic import Field, WithJsonSchema

from bulkhead.gateway_api.query import AllowedRoles, Query, Remedy, Whole
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import CanaryWatch
from bulkhead_contracts.types import Contract
from bulkhead_contracts.workflow import WorkflowRelease, WorkflowRow, WorkflowVersion

ACTORS = AllowedRoles(frozenset({"prompt_editor", "approver", "operator"}), "prompt_editor, approver or operator")
"""Roles that may do something with a version; the registry looks which may do what."""
WorkflowPath = Annotated[
    str,
    Field(description="The workflow's name, weekly-report"),
    WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"}),
]


class WorkflowPage(Contract):
    """Workflows by name: of each the newest version, and the newest that is published. next: the `after` of the
    following page, null where there is none."""

    workflows: Annotated[tuple[WorkflowRow, ...], Field(max_length=bounds.MAX_WORKFLOW_ROWS)]
    next: str | None = None


class WorkflowDocument(Contract):
    """A version of a workflow with its history. versions: of it, the newest first. nested: versions that its steps
    stand for, and theirs. schedule_obstacle: why no run of its schedule or trigger begins now; "" where one could.
    release: the last start, change or end of a canary of the workflow. watch: its canary, beside the rest."""

    row: WorkflowRow
    version: WorkflowVersion
    versions: Annotated[tuple[WorkflowRow, ...], Field(max_length=bounds.MAX_WORKFLOW_ROWS)]
    nested: Annotated[tuple[WorkflowVersion, ...], Field(max_length=bounds.MAX_NESTED_WORKFLOWS)] = ()
    schedule_obstacle: str = ""
    release: WorkflowRelease | None = None
    watch: CanaryWatch | None = None


class WorkflowListQuery(Query[WorkflowPage], name="listWorkflows", path="/v1/workflows", action="read workflows"):
    """List the tenant's workflows, with the state of each

    A page holds what fits into one message: some hundred workflows."""

    after: Annotated[
        str,
        Field(pattern="^([a-z][a-z0-9-]{0,39})?$", description="`next` of the previous page"),
        Remedy("send the `next` of the page before"),
    ] = ""


class WorkflowQuery(
    Query[WorkflowDocument], name="showWorkflow", path="/v1/workflows/{workflow}", action="read workflows"
):
    """Show a version of a workflow, its history and the other versions."""

    workflow: WorkflowPath
    version: Annotated[
        int,
        Field(ge=0, le=999_999, description="Number of the version; 0: the newest published one, or the newest"),
        Whole,
        Remedy("send a whole number"),
    ] = 0
