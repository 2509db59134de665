"""Text of models as it comes: what edges with watchers hear of `live.model_gateway.<tenant>.<task>`."""

from pydantic import ValidationError

from bulkhead.bus.port import LiveMessage
from bulkhead.telemetry.log import Log
from bulkhead_contracts.model import TextDelta

LIVE_TEXT = "live.model_gateway.>"
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
