"""Start the tool_executor service."""

from bulkhead.runtime.main import main

from .app import build
from .settings import Settings

main("tool_executor", build, Settings)
