"""Decisions from records: a call with all that decides about it as one JSON object, without a mesh.

In: a record (docs/how-to/policy.md). Out: a CallProposal, and the ruling as a JSON object. Sources are taken at their
word: a record has no signatures.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulkhead.policy.attribution import SourceText, attribute_values, least_trusted_source, shown_sources
from bulkhead.policy.planned_values import PlannedRules
from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.provenance import Flow, Isolation, PlannedCall, Source
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.types import Name, Tag, Token

MAX_RECORD_BYTES = 16 * 1024 * 1024
UNBOUNDED_MS = 2**53


class RecordError(ValueError):
    """A record that cannot be decided; says which field and what to write."""


class _StrictRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordGrant(_StrictRecord):
    """Rights of the task. tools: [] is every tool that is known."""

    tenant: Token = "default"
    actor: Name = "user"
    role: str = ""
    tools: tuple[Name, ...] = ()
    constraints: tuple[str, ...] = ()
    document_scopes: tuple[Token, ...] = ()
    feature: Tag = ""


class RecordPlan(_StrictRecord):
    """The part of a plan that decides."""

    flows: Annotated[tuple[Flow, ...], Field(max_length=bounds.MAX_FLOWS)] = ()
    calls: Annotated[tuple[PlannedCall, ...], Field(max_length=bounds.MAX_FLOWS)] = ()


class RecordContent(_StrictRecord):
    """A text that stood in the model's context. step_id: of the step whose call gave it. carries: sources that were
    shown to whoever wrote it."""

    content: str
    source: Source
    name: str = ""
    step_id: str = ""
    carries: tuple[str, ...] = ()

    def as_source_text(self) -> SourceText:
        """The same, ready to be attributed to."""
        digest = hashlib.sha256(self.content.encode("utf-8", "surrogatepass")).hexdigest()
        return SourceText(self.content, self.source, digest, self.name, self.step_id, self.carries)


class RecordCall(_StrictRecord):
    """The proposed call. calls_before: calls of this tool that the task has begun."""

    tool: Name
    arguments: dict[str, Any] = {}
    step_id: Token = "step"
    agent: str = "worker"
    calls_before: Annotated[int, Field(ge=0)] = 0
    spent_usd_micros: Annotated[int, Field(ge=0)] = 0
    isolation: Isolation = "wasm"


class DecisionRecord(_StrictRecord):
    """One line. expect: what `bulkhead policy test` wants. model: whether the model itself counts as a source, so that
    a value which stands nowhere is untrusted in every context; it does in a mesh."""

    id: str = ""
    grant: RecordGrant = RecordGrant()
    plan: RecordPlan = RecordPlan()
    sources: Annotated[tuple[RecordContent, ...], Field(max_length=1_024)] = ()
    call: RecordCall
    model: bool = True
    expect: str = ""


def read_record(line: str | bytes) -> DecisionRecord:
    """Raises RecordError."""
    if len(line) > MAX_RECORD_BYTES:
        raise RecordError(f"a record is longer than {MAX_RECORD_BYTES} bytes; shorten its sources")
    try:
        return DecisionRecord.model_validate_json(line)
    except ValidationError as error:
        raise RecordError(
            "; ".join(f"{misfit.where}: {misfit.what}" for misfit in find_misfits(error, DecisionRecord))[:500]
        ) from error


def build_proposal(record: DecisionRecord, tools: Mapping[str, ToolSpec]) -> CallProposal:
    """The call as the executor would put it. Raises RecordError for a tool that is not known."""
    call, grant = record.call, record.grant
    if call.tool not in tools:
        raise RecordError(f"call.tool: {call.tool} is not known; declare it in a file and name that with --tools")
    granted = grant.tools or (call.tool,)  # A grant lists at most 64; every tool that is known may be more.
    texts = [source.as_source_text() for source in record.sources]
    values, _ = attribute_values(call.arguments, texts, PlannedRules(call.tool, record.plan.flows, record.plan.calls))
    task = TaskGrant(
        tenant=grant.tenant,
        task="task",
        actor=grant.actor,
        tools=granted,
        document_scopes=grant.document_scopes,
        limits=TaskLimits(),
        day_cost_usd_micros=0,
        day_tokens=0,
        expires_unix_ms=UNBOUNDED_MS,
        feature=grant.feature,
    )
    step = StepGrant(
        tenant=grant.tenant,
        task="task",
        step_id=call.step_id,
        attempt=1,
        plan_version=1,
        tools=granted,
        expires_unix_ms=UNBOUNDED_MS,
    )
    return CallProposal(
        task=task,
        step=step,
        tool=tools[call.tool],
        arguments=call.arguments,
        values=values,
        least_trusted="model" if record.model else least_trusted_source(texts),
        shown=shown_sources(texts),
        agent=call.agent,
        role=grant.role,
        flows=record.plan.flows,
        planned=record.plan.calls,
        planned_before=(-1,) * min(call.calls_before, bounds.MAX_FLOWS * bounds.MAX_PLANNED_TIMES),
        calls_before=call.calls_before,
        spent_usd_micros=call.spent_usd_micros,
        isolation=call.isolation,
        constraints=grant.constraints,
    )


def ruling_document(ruling: CallRuling, identity: str = "") -> dict[str, Any]:
    """A ruling as a JSON object."""
    return {"id": identity, **asdict(ruling)} if identity else asdict(ruling)
