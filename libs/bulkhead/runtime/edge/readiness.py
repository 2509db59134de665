"""Readiness of an edge to take requests: the broker answers, and its inbox can be read."""

from bulkhead.bus.port import Bus, BusError
from bulkhead_contracts import subjects


async def why_unready(bus: Bus, service: str) -> str:
    """Why it cannot; "" when it can."""
    if not await bus.is_ready():
        return "the message broker does not answer"
    try:
        await bus.read(subjects.inbox_stream(service), subjects.task_filter(service, "none", "none"), limit=1)
    except BusError as error:
        return f"the inbox cannot be read: {error}"
    return ""
