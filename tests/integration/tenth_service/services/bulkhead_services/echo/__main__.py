"""Start the echo service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.echo.app import build
from bulkhead_services.echo.settings import Settings

main("echo", build, Settings)
