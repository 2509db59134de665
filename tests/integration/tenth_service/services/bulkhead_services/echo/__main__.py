"""Start the echo service."""

from services.echo.app import build
from services.echo.settings import Settings

from bulkhead.runtime.process.main import main

main("echo", build, Settings)
