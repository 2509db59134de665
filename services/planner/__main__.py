"""Start the planner service."""

from bulkhead.runtime.main import main
from services.planner.app import build
from services.planner.settings import Settings

main("planner", build, Settings)
