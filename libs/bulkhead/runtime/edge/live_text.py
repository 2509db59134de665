"""Text of models and calls of doers as they come: what edges with watchers hear of `live.<doer>.<tenant>.<task>`."""

from pydantic import ValidationError

from bulkhead.bus.port import LiveMessage
from bulkhead.telemetry.log import Log
from bulkhead_contracts.model import TextDelta
from bulkhead_contracts.tool import LiveCall

LIVE_TEXT = "live.model_gateway.>"
LIVE_CALLS = ("live.rag.>", "live.tool_executor.>")
LIVE_PENDING = 10_000
"""So many pieces wait for a slow edge; more are lost, and its record fills the gap."""
log = Log("edge.live_text")


def text_delta(live: LiveMessage) -> tuple[str, str, TextDelta] | None:
    """Tenant, task and piece; None for what is no such message."""
    parts = live.subject.split(".")
    if len(parts) != 4:
        return None
    try:
        return parts[2], parts[3], TextDelta.model_validate_json(live.body)
    except ValidationError:
        log.warning("bad_delta", subject=live.subject)
        return None


def live_call(live: LiveMessage) -> tuple[str, str, LiveCall] | None:
    """Tenant, task and word about a call; None for what is no such message, as a tool's progress is."""
    parts = live.subject.split(".")
    if len(parts) != 4 or b'"event":' not in live.body[:64]:
        return None
    try:
        return parts[2], parts[3], LiveCall.model_validate_json(live.body)
    except ValidationError:
        log.warning("bad_live_call", subject=live.subject)
        return None
