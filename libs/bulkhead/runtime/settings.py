"""Settings that every service has. Each service's own `settings.py` extends this class; env prefix BULKHEAD_.

In: the environment, and files that it names: `NAME_FILE=/path` gives the setting NAME the file's content, so that no
secret is in the environment. Out: checked values.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from bulkhead.runtime import crash_points
from bulkhead_contracts import catalog
from bulkhead_contracts.types import Token

FILE_SUFFIX = "_FILE"
MAX_SECRET_BYTES = 64 * 1024


class SecretFileMissing(ValueError):
    """The file of a setting cannot be read; the message says which one and what to do."""


class SecretFileSource(EnvSettingsSource):
    """The last source: NAME_FILE for every setting NAME, unless a setting of that very name exists."""

    def __call__(self) -> dict[str, Any]:
        """Raises SecretFileMissing."""
        values: dict[str, Any] = {}
        for field_name, field in self.settings_cls.model_fields.items():
            if f"{field_name}{FILE_SUFFIX}".lower() in self.settings_cls.model_fields:
                continue
            for key, name, is_complex in self._extract_field_info(field, field_name):
                if path := self.env_vars.get(f"{name}{FILE_SUFFIX}".lower()):
                    text = _read_secret_file(f"{name}{FILE_SUFFIX}".upper(), path)
                    values.setdefault(key, self.prepare_field_value(field_name, field, text, is_complex))
        return values


def _read_secret_file(setting: str, path: str) -> str:
    try:
        with open(path) as file:
            return file.read(MAX_SECRET_BYTES).rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SecretFileMissing(
            f"setting {setting}: {path} cannot be read: {reason}; in containers `provision-keys` writes it, elsewhere "
            "name a file that this user may read"
        ) from error


def _known_crash_point(crash_at: str) -> str:
    crash_points.parse(crash_at)
    return crash_at


def _are_events(wanted: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    unknown = sorted({name for names in wanted.values() for name in names} - set(catalog.EVENTS))
    if unknown:
        raise ValueError(f"{unknown[0][:100]!r} is no event; there are {', '.join(sorted(catalog.EVENTS))}")
    return wanted


WebhookEvents = Annotated[dict[Token, tuple[str, ...]], AfterValidator(_are_events)]
"""By tenant, names of events."""


class ServiceSettings(BaseSettings):
    """Read from the environment: BULKHEAD_NATS_URL and so on.

    identity_dir holds `<service>.nkey`, `<service>.sign` and `public.json`; data_dir is for a service's own files
    (rag's documents, telemetry when no OTLP endpoint is set). nats_ca_file: TLS to the broker, whose certificate must
    be of this CA. nats_token_file: log in with the token that this file holds then (Kubernetes projects it), and not
    with an nkey. nats_ping_s: how often the broker is asked whether it is there; who does not answer twice is gone.
    health_port 0 means: choose a free one. health_host: where it listens, 0.0.0.0 for probes from outside. metrics:
    False for an OTLP endpoint that takes traces alone. crash_at is for tests alone: see crash_points.py.
    """

    model_config = SettingsConfigDict(env_prefix="BULKHEAD_", extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    nats_ca_file: Path | None = None
    nats_token_file: Path | None = None
    nats_ping_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    identity_dir: Path = Path(".bulkhead/identity")
    data_dir: Path = Path(".bulkhead/data")
    instance: str = "0"
    slots: int = 64
    health_port: int = 0
    health_host: str = "127.0.0.1"
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
    metrics: bool = True
    crash_at: Annotated[str, AfterValidator(_known_crash_point)] = ""

    def start_problems(self) -> list[str]:
        """Problems that would end the start of the service, though each value is right; told before any process
        runs.
        """
        return []

    def needed_modules(self) -> tuple[str, ...]:
        """Large modules that these settings need: imported before the broker is called, which gives up who is silent
        for a few seconds.
        """
        return ()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources of pydantic-settings, then the files that the environment names."""
        return (*sources, *named.values(), SecretFileSource(settings_cls))
