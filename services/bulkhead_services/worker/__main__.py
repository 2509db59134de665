"""Start the worker service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.worker.app import build
from bulkhead_services.worker.settings import Settings

main("worker", build, Settings)
