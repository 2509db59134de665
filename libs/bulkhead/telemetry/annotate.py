"""GenAI attributes for the current span: chat, execute_tool, retrieval."""

from opentelemetry import trace

from bulkhead.telemetry import names
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body

Requested = ModelCallRequested | ToolCallRequested | RetrievalRequested
Replied = ModelCallReplied | ToolCallReplied | RetrievalReplied


def annotate_span(reply: Body, request: Body) -> None:
    """Name and attributes of the current span from a doer's request and reply."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    attributes: dict[str, str | int | bool] = {}
    if isinstance(reply, ModelCallReplied) and isinstance(request, ModelCallRequested):
        span.update_name(f"{names.CHAT} {reply.model or request.tier}")
        attributes = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: reply.provider,
            names.RESPONSE_MODEL: reply.model,
            names.PROMPT_ID: reply.prompt_id,
            names.PROMPT_DIGEST: reply.prompt_digest,
            names.PROMPT_RELEASE: reply.release,
            names.STANDING: reply.standing,
            names.COMPLETE: reply.completeness.complete,
        }
    elif isinstance(reply, ToolCallReplied) and isinstance(request, ToolCallRequested):
        span.update_name(f"{names.EXECUTE_TOOL} {request.tool}")
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: request.tool,
            names.STANDING: reply.standing,
        }
    elif isinstance(reply, RetrievalReplied) and isinstance(request, RetrievalRequested):
        span.update_name(names.RETRIEVAL)
        attributes = {names.OPERATION: names.RETRIEVAL, names.STANDING: reply.standing}
    if not attributes or not isinstance(reply, Replied) or not isinstance(request, Requested):
        return
    usage = reply.usage
    attributes |= {
        names.OUTCOME: reply.outcome,
        names.STEP: request.step_id,
        names.CALL: request.call_id,
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHED_TOKENS: usage.cached_input_tokens,
        names.COST: usage.cost_usd_micros,
    }
    if usage.estimated_usd_micros:
        attributes[names.COST_ESTIMATED] = usage.estimated_usd_micros
    if reply.failure is not None:
        attributes[names.FAILURE_CODE] = reply.failure.code
    span.set_attributes(attributes)
