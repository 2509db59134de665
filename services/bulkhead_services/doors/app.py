"""Composition root of doors."""

from bulkhead.runtime.context import Context
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings

SERVICE = "doors"


def build(context: Context, settings: Settings) -> Doors:
    """The edge, not yet started. Raises ValueError for settings that do not go together."""
    if settings.idle_s < settings.call_timeout_s:
        # Another replica would end a run as idle while a call of it is in flight here.
        what = f"BULKHEAD_IDLE_S ({settings.idle_s:g}) is below BULKHEAD_CALL_TIMEOUT_S ({settings.call_timeout_s:g})"
        raise ValueError(f"{what}: a run would be idle while its call is in flight; raise the first or lower the other")
    return Doors(context, settings)
