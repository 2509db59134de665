"""Start the identity service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.identity.app import build
from bulkhead_services.identity.settings import Settings

main("identity", build, Settings)
