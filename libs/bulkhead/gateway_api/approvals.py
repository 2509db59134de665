"""Reads of calls that wait for a person's word, or did."""

import json
from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import Field

from bulkhead.gateway_api.query import EVERY_ROLE, Id, Query, Remedy
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.plan import ASK_PERSON
from bulkhead_contracts.types import Contract, Count

State = Literal["waiting", "granted", "denied", "expired", "abandoned"]
AnyState = Literal["waiting", "granted", "denied", "expired", "abandoned", "all"]
STATES: tuple[AnyState, ...] = get_args(AnyState)


class PersonQuestion(Contract):
    """A plan's question to a person. text: of the question; results: summaries of the steps' results that it is
    about."""

    text: str
    results: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_STEP_INPUTS)] = ()


def read_question(tool: str, arguments_json: str) -> PersonQuestion | None:
    """The question that a call asks; None for a call of any other tool."""
    if tool != ASK_PERSON:
        return None
    try:
        arguments = json.loads(arguments_json)
        return PersonQuestion(text=arguments["question"], results=tuple(arguments.get("results", ())))
    except (ValueError, KeyError, TypeError, AttributeError):
        return PersonQuestion(text=arguments_json)


class ApprovalDocument(Contract):
    """A call that waits for a person's word, or did. state `expired`: nobody decided in time; `abandoned`: its task
    ended before. request: the call as it is made if it is granted, and in no other way; question: that it asks for a
    plan; null where it asks none; end: who decided, and why; null while it waits."""

    approval_id: str
    task_id: str
    state: State
    request: ApprovalRequested
    question: PersonQuestion | None = None
    end: ApprovalEnded | None = None


class ApprovalPage(Contract):
    """Approvals, the newest first. more: how many are not listed."""

    approvals: Annotated[tuple[ApprovalDocument, ...], Field(max_length=200)]
    more: Count = 0


READERS = replace(EVERY_ROLE, needed="approver")


class ApprovalListQuery(
    Query[ApprovalPage], name="listApprovals", path="/v1/approvals", action="read approvals", allowed=READERS
):
    """List calls that wait for a person's word, or did, the newest first."""

    state: Annotated[AnyState, Field(description="How they stand"), Remedy(f"use one of: {', '.join(STATES)}")] = (
        "waiting"
    )
    task: Annotated[str, Field(description="Only calls of this task")] = ""


class ApprovalQuery(
    Query[ApprovalDocument],
    name="showApproval",
    path="/v1/approvals/{approval_id}",
    action="read approvals",
    allowed=READERS,
):
    """Show a call exactly as it is made if it is granted."""

    approval_id: Annotated[Id, Field(description="The approval's id")]
