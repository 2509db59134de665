"""Start the budget service."""

from bulkhead.runtime.main import main

from .app import build
from .settings import Settings

main("budget", build, Settings)
