"""Outcome to reply: what the agent is told of a call that was made.

In: a tool's outcome and the attempts that it took. Out: ToolCallReplied, its content bounded, labelled and stored.
"""

from dataclasses import dataclass
from typing import Any

from bulkhead.flow.content import summarise
from bulkhead.runtime.doer.protocol import Job, JobContext
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.results import find_sensitive_kinds
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Completeness, Failure, Label, Omission, Usage
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_services.tool_executor.registry import RegisteredTool

OBSERVER = "tool_executor"


@dataclass(frozen=True, slots=True)
class CallAttempts:
    """The last attempt's outcome, how many were made, whether any may have changed the world without saying so, and the
    price of all of them."""

    outcome: Done | Failed
    made: int
    maybe_done: bool
    cost_usd_micros: int = 0


async def reply_to_call(
    job: Job[ToolCallRequested],
    context: JobContext,
    tool: RegisteredTool,
    attempts: CallAttempts,
    spent_ms: int,
    carries: tuple[str, ...] = (),
) -> ToolCallReplied:
    """The reply to a call that was made: with its result, whose content goes to the blobs, or with its failure.
    carries: sources of earlier tasks that its result may be made of."""
    outcome = attempts.outcome
    if isinstance(outcome, Done):
        fields = await _result_fields(job, context, tool, outcome, carries)
    else:
        message, hint = without_sensitive(outcome.message), without_sensitive(outcome.hint)
        if attempts.maybe_done:
            metrics.writes_uncertain.add(1, {names.TOOL_NAME: tool.spec.name})
            message = f"{message}; {tool.spec.name} may have been done all the same"
            hint = "it is not repeated: a person must look whether it happened"
        elif attempts.made > 1:
            message = f"{message} (tried {attempts.made} times)"
        fields = {"outcome": "uncertain" if attempts.maybe_done else "failed", "standing": "failed"}
        fields["failure"] = Failure.from_text(outcome.code, message, hint)
    return ToolCallReplied(
        call_id=job.request.call_id,
        step_id=job.request.step_id,
        effect=tool.spec.effect,
        usage=Usage(tool_calls=attempts.made, cost_usd_micros=attempts.cost_usd_micros),
        duration_ms=spent_ms,
        **fields,
    )


async def _result_fields(
    job: Job[ToolCallRequested], context: JobContext, tool: RegisteredTool, done: Done, carries: tuple[str, ...]
) -> dict[str, Any]:
    """The fields of a result, bounded; its content goes to the blobs."""
    raw, bound = done.text.encode("utf-8", "replace"), tool.row.max_output_bytes
    text = raw[:bound].decode("utf-8", "ignore")
    output, sensitive_kinds = f"output of {tool.spec.name}", find_sensitive_kinds(text)
    for kind in sensitive_kinds:
        metrics.tool_sensitive.add(1, {names.KIND: kind})
    # The summary stands in messages, for everybody who reads the journal; the content is the agent's alone.
    content = await context.blobs.put(
        job.tenant, text, summary=summarise(without_sensitive(text)) if sensitive_kinds else None
    )
    step_id = job.request.step_id  # Of its grant, as was looked at before.
    lacks: list[Omission] = []
    if done.truncated or len(raw) > bound:
        lacks.append(Omission(reason="truncated", what=output, detail=f"output_truncated: cut at {bound} bytes"))
    if done.missing:
        reason = without_sensitive(done.missing)[: bounds.MAX_REASON_CHARS]
        lacks.append(Omission(reason="failed_part", what=output, detail=reason))
    for omitted in done.omitted[: bounds.MAX_OMISSIONS - 2]:
        detail = f"left out: {without_sensitive(omitted)}"[: bounds.MAX_REASON_CHARS]
        lacks.append(Omission(reason="pruned", what=output, detail=detail))
    label = Label(
        sha256=content.sha256,
        kind="tool_result",
        source=tool.spec.name,
        observed_by=OBSERVER,
        step_id=step_id,
        carries=carries,
        partial=bool(lacks),
    )
    return {
        "outcome": "succeeded",
        "content": content,
        "completeness": Completeness.with_omissions(*lacks) if lacks else Completeness(),
        "provenance": (context.signer.sign_label(label, job.tenant, job.task),),
        "sensitive": sensitive_kinds,
    }


def busy_failure(tenant: str, tool: RegisteredTool, slots: FairSemaphore) -> Failure:
    """Why a call found no place before its deadline."""
    kind, setting = ("plain tools", "PROCESSES") if tool.runs_in_own_process else ("tools", "PLACES")
    share_spent = slots.tenant_capacity < slots.capacity and slots.is_at_tenant_capacity(tenant)
    running = (
        f"{slots.tenant_capacity} {kind} of tenant {tenant} (its share of {slots.capacity})"
        if share_spent
        else f"{slots.capacity} {kind}"
    )
    message = f"no place became free before the call's deadline: {running} are running"
    return Failure.from_text("busy", message, f"call fewer at once; an operator may raise BULKHEAD_TOOL_{setting}")


def price_of_call(tool: RegisteredTool, outcome: Done | Failed) -> int:
    """Price of a call: nothing where it certainly did nothing."""
    return 0 if isinstance(outcome, Failed) and outcome.effect == "none" else tool.row.price_usd_micros
