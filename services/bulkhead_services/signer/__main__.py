"""Start the signer service."""

from bulkhead.runtime.process.main import main
from bulkhead_services.signer.app import build
from bulkhead_services.signer.settings import Settings

main("signer", build, Settings)
