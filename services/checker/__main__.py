"""Start the checker service."""

from bulkhead.runtime.main import main
from services.checker.app import build
from services.checker.settings import Settings

main("checker", build, Settings)
