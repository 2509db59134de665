"""Start the signer service."""

from bulkhead.runtime.main import main

from .app import build
from .settings import Settings

main("signer", build, Settings)
