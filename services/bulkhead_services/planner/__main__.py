"""Start the planner service."""

from bulkhead.runtime.process.start import start_decider
from bulkhead_services.planner.app import LOGICS, SERVICE

start_decider(SERVICE, LOGICS)
