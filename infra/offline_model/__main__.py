"""Start: `python -m infra.offline_model --port N`."""

import uvicorn

from infra.offline_model.server import build_app
from infra.offline_model.settings import parse_settings

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
