"""Start the worker service."""

from bulkhead.runtime.process.start import start_decider
from bulkhead_services.worker.app import LOGICS, SERVICE

start_decider(SERVICE, LOGICS)
