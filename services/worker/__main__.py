"""Start the worker service."""

from bulkhead.runtime.main import main
from services.worker.app import build
from services.worker.settings import Settings

main("worker", build, Settings)
