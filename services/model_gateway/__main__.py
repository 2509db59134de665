"""Start the model gateway."""

from bulkhead.runtime.main import main

from .app import build
from .settings import Settings

main("model_gateway", build, Settings)
