"""Start the budget service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.budget.app import build
from bulkhead_services.budget.settings import Settings

main("budget", build, Settings)
