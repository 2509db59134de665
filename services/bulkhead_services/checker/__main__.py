"""Start the checker service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.checker.app import build
from bulkhead_services.checker.settings import Settings

main("checker", build, Settings)
