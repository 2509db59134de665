"""The environment of each process: as little as it needs.

In: facts of this run and the environment of the one who started it. Out: a dictionary per service. A knob
(BULKHEAD_*) is passed on only to services whose Settings have it; secrets go to the one service that uses them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from bulkhead.runtime.process.main import setting_problems
from bulkhead.runtime.settings import FILE_SUFFIX, ServiceSettings
from bulkhead_infra.composition import newest_logic, settings_of
from bulkhead_infra.local.rundir import API_KEYS_FILE, PUBLISHERS_FILE, RunDir
from bulkhead_infra.nats.configuration import ONE_MACHINE_PING_S
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.services import SERVICES, Setting

PREFIX = "BULKHEAD_"
SYSTEM = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH")
PROVIDER = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")
"""Variables that name a provider, as the vendors' own clients read them."""
MODEL_KNOBS = ("model", "judge_model", "fallback_model", "routes", "providers", "context_tokens", "tenant_policies")
"""With the offline model these are not passed on: they name models that it is not, and no data leaves the machine."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of this run. http_ports: by service. offline_url: base of the offline model, "" for a real provider."""

    nats_url: str
    redis_url: str
    http_ports: Mapping[str, int]
    offline_url: str
    tenants_file: Path
    drain_timeout_s: float
    shards: Mapping[str, int]


def resolve_paths(outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of the one who starts it, with paths as they are meant there: processes run in another folder."""
    environ = dict(outer)
    for name in environ:
        if name == "PYTHONPATH":
            environ[name] = os.pathsep.join(os.path.abspath(path) for path in environ[name].split(os.pathsep))
        elif name.startswith((PREFIX, "SSL_CERT_")) and name.endswith(("_FILE", "_DIR")) and environ[name]:
            environ[name] = os.path.abspath(environ[name])
    return environ


def environ_of(
    service: str, instance: int, run: RunDir, facts: RunFacts, outer: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of one replica; `extra` wins."""
    environ = {name: outer[name] for name in SYSTEM if name in outer}
    environ |= {"PYTHONUNBUFFERED": "1"}
    environ |= _knob_variables(service, outer, skip=MODEL_KNOBS if facts.offline_url else ())
    own_settings: dict[str, object] = {
        "nats_url": facts.nats_url,
        "identity_dir": run.own_identity(service),
        "data_dir": run.path,
        "instance": instance,
        "health_file": run.health_file(f"{service}-{instance}"),
        "trace_file": run.path / "traces" / f"{service}-{instance}.jsonl",
        "drain_timeout_s": facts.drain_timeout_s,
        "shards": facts.shards.get(service, 1),
    }
    for setting in SERVICES[service].environment:
        match setting:
            case Setting.HTTP:
                # The first replica has the address that everybody knows.
                own_settings["http_port"] = facts.http_ports[service] if instance == 0 else 0
                own_settings["http_file"] = run.path / "run" / f"{service}-{instance}.http.json"
            case Setting.CALLERS:
                own_settings |= {
                    "api_keys_file": run.path / API_KEYS_FILE,
                    "publishers_file": run.path / PUBLISHERS_FILE,
                }
            case Setting.TENANTS:
                own_settings["tenants_file"] = facts.tenants_file
            case Setting.REDIS:
                own_settings["redis_url"] = facts.redis_url
            case Setting.PROVIDER:
                environ |= _provider_variables(facts, outer)
            case Setting.GATEWAY:
                own_settings["gateway_url"] = f"http://127.0.0.1:{facts.http_ports['gateway']}"
            case Setting.POLICY:
                pass  # A knob, with the mesh's own folder otherwise.
            case Setting.LOGIC:
                if PREFIX + "LOGIC" not in outer:
                    own_settings["logic"] = newest_logic()
            case _:
                assert_never(setting)
    if PREFIX + "NATS_PING_S" not in outer:
        own_settings["nats_ping_s"] = ONE_MACHINE_PING_S
    environ |= {PREFIX + name.upper(): str(value) for name, value in own_settings.items()}
    return environ | dict(extra)


def setting_errors(service: str, environ: Mapping[str, str]) -> list[str]:
    """Errors in the settings of one service, one line each, found without starting its process."""
    try:
        lines = settings_from(service, environ).start_problems()
    except ValueError as error:
        lines = setting_problems(error, settings_of(service))
    return [f"{service}: {line}" for line in lines]


def settings_from(service: str, environ: Mapping[str, str]) -> ServiceSettings:
    """The settings of one service as its process will read them. Raises ValueError."""
    return _bind_environ(settings_of(service), environ)()


def _bind_environ(settings: type[ServiceSettings], environ: Mapping[str, str]) -> type[ServiceSettings]:
    """The same Settings, read from this environment and not from the one of this process."""
    variables = {name.lower(): value for name, value in environ.items()}

    class EnvironSettings(settings):  # type: ignore[valid-type,misc]
        @classmethod
        def settings_customise_sources(cls, *sources: Any, **named: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            settings_sources = super().settings_customise_sources(*sources, **named)
            for source in settings_sources:
                if isinstance(source, EnvSettingsSource):
                    source.env_vars = variables
            return settings_sources  # type: ignore[no-any-return]

    return EnvironSettings


def names_provider(environ: Mapping[str, str]) -> bool:
    """True when the environment names a provider of models; without one the offline model answers."""
    return any(environ.get(name) for name in (*PROVIDER, PREFIX + "PROVIDERS"))


def _provider_variables(facts: RunFacts, outer: Mapping[str, str]) -> dict[str, str]:
    if facts.offline_url:
        return {"OPENAI_BASE_URL": facts.offline_url, "OPENAI_API_KEY": "offline", PREFIX + "MODEL": MODEL_NAME}
    return {name: outer[name] for name in PROVIDER if name in outer}


def _knob_variables(service: str, outer: Mapping[str, str], skip: tuple[str, ...]) -> dict[str, str]:
    known_variables = {PREFIX + name.upper() for name in settings_of(service).model_fields if name not in skip}
    known_variables |= {name + FILE_SUFFIX for name in known_variables}
    return {name: value for name, value in outer.items() if name.upper() in known_variables}
