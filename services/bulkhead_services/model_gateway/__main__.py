"""Start the model gateway."""

from bulkhead.runtime.process.main import main
from bulkhead_services.model_gateway.app import build
from bulkhead_services.model_gateway.settings import Settings

main("model_gateway", build, Settings)
