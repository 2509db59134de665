"""Composition root of doors."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.doors.service import Doors
from bulkhead_services.doors.settings import Settings


def build(context: Context, settings: Settings) -> Doors:
    """The edge, not yet started. Raises ValueError for settings that do not go together."""
    if settings.idle_s < settings.call_timeout_s:
        # Another replica would end a run as idle while a call of it is in flight here.
        conflict = (
            f"BULKHEAD_IDLE_S ({settings.idle_s:g}) is below BULKHEAD_CALL_TIMEOUT_S ({settings.call_timeout_s:g})"
        )
        raise ValueError(
            f"{conflict}: a run would be idle while its call is in flight; raise the first or lower the other"
        )
    if settings.card_key_file is not None and not settings.public_url:
        # A caller's own Host would else stand in a card that the mesh has signed.
        raise ValueError("BULKHEAD_CARD_KEY_FILE needs BULKHEAD_PUBLIC_URL: a signed card names one address; set it")
    return Doors(context, settings)


if __name__ == "__main__":
    main("doors", build, Settings)
