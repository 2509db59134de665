"""Settings that every service has. Each service's own `settings.py` extends this class; env prefix BULKHEAD_."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bulkhead.runtime import crashing


def _known(crash_at: str) -> str:
    crashing.parse(crash_at)
    return crash_at


class ServiceSettings(BaseSettings):
    """Read from the environment: BULKHEAD_NATS_URL and so on.

    identity_dir holds `<service>.nkey`, `<service>.sign` and `public.json`; data_dir is for a service's own files
    (rag's documents, telemetry when no OTLP endpoint is set). health_port 0 means: choose a free one. crash_at is for
    tests alone: see crashing.py.
    """

    model_config = SettingsConfigDict(env_prefix="BULKHEAD_", extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    identity_dir: Path = Path(".bulkhead/identity")
    data_dir: Path = Path(".bulkhead/data")
    instance: str = "0"
    slots: int = 64
    health_port: int = 0
    health_file: Path | None = None
    log_json: bool = False
    log_level: str = "info"
    otlp_endpoint: str = ""
    trace_file: Path | None = None
    trace_prompts: bool = False
    drain_timeout_s: float = 10.0
    logic: int = 1
    shards: int = 1
    trace: bool = True
    crash_at: Annotated[str, AfterValidator(_known)] = ""
