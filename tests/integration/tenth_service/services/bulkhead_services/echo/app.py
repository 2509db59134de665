"""Composition root of echo: requests come in, `core.Echo` answers."""

from services.echo.core import Echo
from services.echo.settings import Settings

from bulkhead.runtime.context import Context


def build(context: Context, settings: Settings) -> Echo:
    """The doer."""
    return Echo(settings.echo_prefix)
