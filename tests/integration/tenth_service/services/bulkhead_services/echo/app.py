"""Composition root of echo: requests come in, `core.Echo` answers."""

from bulkhead.runtime.context import Context
from bulkhead_services.echo.core import Echo
from bulkhead_services.echo.settings import Settings


def build(context: Context, settings: Settings) -> Echo:
    """The doer."""
    return Echo(settings.echo_prefix)
