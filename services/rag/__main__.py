"""Start the rag service."""

from bulkhead.runtime.main import main

from .app import build
from .settings import Settings

main("rag", build, Settings)
