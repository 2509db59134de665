"""Reads of prompts: which there are, their versions, and what each label stands for."""

from typing import Annotated

from pydantic import Field, WithJsonSchema

from bulkhead.gateway_api.query import AllowedRoles, Id, Query, Remedy, Whole
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import (
    CanaryWatch,
    DriftAlarm,
    PromptRelease,
    PromptSummary,
    PromptVariable,
    PromptVersion,
    ReleaseRef,
    VersionMark,
)
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.types import Contract, Name, Summary

READERS = AllowedRoles(frozenset({"operator", "auditor", "prompt_editor"}), "prompt_editor, operator or auditor")
EDITORS = AllowedRoles(frozenset({"prompt_editor", "operator"}), "prompt_editor or operator")
Before = Annotated[
    int,
    Field(ge=0, le=999_999, description="Only what is older than this number; 0 begins at the newest"),
    Whole,
    Remedy("send a whole number"),
]
PromptName = Annotated[
    str,
    Field(description="The prompt's id, worker.step"),
    WithJsonSchema({"type": "string", "pattern": r"^[a-z_]+(\.[a-z_]+)*$"}),
]


class PromptPage(Contract):
    """Prompts that services ask for, by id, and which of the tenant's versions replace them."""

    prompts: Annotated[tuple[PromptSummary, ...], Field(max_length=bounds.MAX_PROMPTS)]


class PromptDocument(Contract):
    """A prompt: its shipped text, and the tenant's versions, the newest first. more: there are older ones."""

    prompt: PromptSummary
    shipped_text: str
    shipped_sha256: str
    versions: Annotated[tuple[PromptVersion, ...], Field(max_length=bounds.MAX_PROMPT_PAGE)]
    more: bool


class PromptVersionDocument(Contract):
    """One version, shipped or the tenant's. name: `worker.step@r3`, or `worker.step@1` of a shipped one. values: those
    that the release sets. filled_text: what a model is told, each variable with its value. version: person, note and
    time of the tenant's."""

    name: str
    sha256: str
    text: str
    variables: Annotated[tuple[PromptVariable, ...], Field(max_length=bounds.MAX_PROMPT_VARIABLES)] = ()
    values: dict[Name, Summary] = {}
    filled_text: str
    version: PromptVersion | None = None


class ReleasePage(Contract):
    """Releases, the newest first. more: there are older ones. canaries: those that stand, beside the rest. drifts: of
    all labels, alarms of the last day. gate: what a move of the label needs; null without a gate, and in a list of
    labels."""

    releases: Annotated[tuple[PromptRelease, ...], Field(max_length=bounds.MAX_RELEASE_PAGE)]
    more: bool = False
    canaries: Annotated[tuple[CanaryWatch, ...], Field(max_length=bounds.MAX_RELEASE_LABELS)] = ()
    drifts: Annotated[tuple[DriftAlarm, ...], Field(max_length=bounds.MAX_DRIFT_ALARMS)] = ()
    gate: GatePolicy | None = None


class PromptListQuery(
    Query[PromptPage], name="listPrompts", path="/v1/prompts", action="read prompts", allowed=READERS
):
    """List the prompts of the mesh, and which version of each is used where."""


class PromptQuery(
    Query[PromptDocument], name="showPrompt", path="/v1/prompts/{prompt}", action="read prompts", allowed=READERS
):
    """Show a prompt with its versions, the newest first."""

    prompt: PromptName
    before: Before = 0


class PromptVersionQuery(
    Query[PromptVersionDocument],
    name="showPromptVersion",
    path="/v1/prompts/{prompt}/versions/{version}",
    action="read prompts",
    allowed=READERS,
):
    """Show one version of a prompt, shipped or the tenant's, and the text that a release makes of it."""

    prompt: PromptName
    version: Annotated[
        VersionMark,
        Field(description="r3 for the tenant's third version, 2 for the second one that was shipped"),
        Remedy("send r3 for a version of your own, 2 for a shipped one"),
    ]
    release: Annotated[
        ReleaseRef,
        Field(description="With the values of this release: production.12, or production.12.canary"),
        Remedy("send a release like production.12"),
    ] = ""


class ReleaseListQuery(
    Query[ReleasePage], name="listReleases", path="/v1/releases", action="read prompts", allowed=READERS
):
    """List what the tenant's labels stand for."""


class LabelQuery(
    Query[ReleasePage], name="showReleases", path="/v1/releases/{label}", action="read prompts", allowed=READERS
):
    """Show what a label stood for, the newest first: who moved it, when and why."""

    label: Annotated[Id, Field(description="The label, production")]
    before: Before = 0
