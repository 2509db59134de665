"""Options of a task, declared once: the stored request, the HTTP body, the document, the client and forks inherit them.

A module of its own, because the command line reads its descriptions at each start.
"""

import operator
from typing import Any, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from .output import Delivery
from .types import Constraints, Contract, Name, Tag

WrittenBy = Literal["person", "model"]
"""Author of an objective, and of the plan that comes with it."""
Replan = Literal["same_tools", "none"]
"""What may take the place of a submitted plan that fails: a plan with no tool and no write beyond it, or nothing."""


def is_default_replan(value: object) -> bool:
    """Not written then: the default."""
    return value == "same_tools"


def is_written_by_person(value: object) -> bool:
    """Not written then: the default."""
    return value == "person"


class TaskOptions(Contract):
    """Choices of the requester beside objective, limits, plan and fork. An empty one takes the mesh's own."""

    tools: tuple[Name, ...] = Field(
        default=(),
        max_length=bounds.MAX_TOOLS,
        description="Tools that the task may use. Without any: those of the tenant that only read, its "
        "`default_writes`, and those that the plan's steps name.",
    )
    check: bool = Field(default=True, description="Check the results.")
    feature: Tag = Field(default="", description="Feature of your product that the spending is counted under.")
    workflow: Tag = Field(default="", description="Workflow that the spending is counted under.")
    delivery: Delivery | None = Field(
        default=None,
        description="When words of the answer may be shown: as they come, sentence by sentence as each one's source is "
        "found, or when the checker has accepted them. Your tenant's rules may be stricter.",
    )
    route: Tag = Field(
        default="", description="Route of the model gateway for the task's calls; `bulkhead models list` shows them."
    )
    prompt_release: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_]{0,31}(\.[1-9][0-9]{0,8})?)?$",
        exclude_if=operator.not_,
        description="Label of the prompts' release, `staging`, or one release of it, `trial.7`; `production` without.",
    )
    replan: Replan = Field(
        default="same_tools",
        exclude_if=is_default_replan,
        description="What may take your plan's place when it fails: another with its tools and no write more, or none.",
    )
    approve_plan: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="A plan that the mesh drafts waits until a person approves it. Your own plan needs no approval.",
    )
    constraints: Constraints = Field(
        default=(), description="On arguments of tools, beside the tenant's, as in 'pay /amount range 0..100'."
    )
    conversation: Tag = Field(
        default="", exclude_if=operator.not_, description="Name of yours for tasks that belong together."
    )
    written_by: WrittenBy = Field(
        default="person",
        exclude_if=is_written_by_person,
        description="A model's words choose no recipient, account or amount without a person's approval. Of an agent's "
        "key they always are a model's.",
    )

    def pick_options(self) -> dict[str, Any]:
        """These options alone, as fields of another request."""
        return {name: getattr(self, name) for name in TaskOptions.model_fields}
