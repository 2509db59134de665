"""Start the planner service."""

from bulkhead.start import start_decider
from bulkhead_services.planner.app import LOGICS, SERVICE

start_decider(SERVICE, LOGICS)
