"""Start the gateway service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.gateway.app import build
from bulkhead_services.gateway.settings import Settings

main("gateway", build, Settings)
