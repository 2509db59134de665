"""Start the doors service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.doors.app import build
from bulkhead_services.doors.settings import Settings

main("doors", build, Settings)
