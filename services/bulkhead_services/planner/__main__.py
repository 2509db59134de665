"""Start the planner service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.planner.app import build
from bulkhead_services.planner.settings import Settings

main("planner", build, Settings)
