"""Composition root of doors."""

from bulkhead.runtime.context import Context
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings

SERVICE = "doors"


def build(context: Context, settings: Settings) -> Doors:
    """The edge, not yet started."""
    return Doors(context, settings)
