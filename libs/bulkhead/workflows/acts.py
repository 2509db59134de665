"""Rules of acts on a version of a workflow: in which states, to which, by whom. The registry goes by them."""

from typing import NamedTuple

from bulkhead_contracts.workflow import WorkflowAction, WorkflowState

EDITORS = ("prompt_editor", "operator")
APPROVERS = ("approver", "operator")


class ActRule(NamedTuple):
    """One act: from which states, to which, by whom."""

    before: tuple[WorkflowState, ...]
    after: WorkflowState
    roles: tuple[str, ...]


RULES: dict[WorkflowAction, ActRule] = {
    "submit": ActRule(("draft",), "in_review", EDITORS),
    "reject": ActRule(("in_review", "approved"), "draft", APPROVERS),
    "approve": ActRule(("in_review",), "approved", APPROVERS),
    "publish": ActRule(("approved",), "published", EDITORS),
    "retire": ActRule(("draft", "in_review", "approved", "published"), "retired", EDITORS),
    # It runs in the name of who sets it, who therefore may submit tasks.
    "schedule": ActRule(("published",), "published", ("operator",)),
    "unschedule": ActRule(("published",), "published", ("operator",)),
}
