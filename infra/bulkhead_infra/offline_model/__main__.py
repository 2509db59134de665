"""Start: `python -m bulkhead_infra.offline_model --port N`."""

import uvicorn

from bulkhead_infra.offline_model.http.server import build_app
from bulkhead_infra.offline_model.settings import parse_settings

if __name__ == "__main__":
    settings = parse_settings()
    uvicorn.run(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
