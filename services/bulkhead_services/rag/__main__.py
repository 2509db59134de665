"""Start the rag service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.rag.app import build
from bulkhead_services.rag.settings import Settings

main("rag", build, Settings)
