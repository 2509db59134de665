"""Composition root of echo: requests come in, `core.Echo` answers."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.echo.core import Echo
from bulkhead_services.echo.settings import Settings


def build(context: Context, settings: Settings) -> Echo:
    """The doer."""
    return Echo(settings.echo_prefix)


if __name__ == "__main__":
    main("echo", build, Settings)
