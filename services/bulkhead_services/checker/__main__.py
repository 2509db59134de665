"""Start the checker service."""

from bulkhead.runtime.process.start import start_decider
from bulkhead_services.checker.app import LOGICS, SERVICE

start_decider(SERVICE, LOGICS)
