"""The composition roots of services, found by name: `bulkhead_services.<name>.app` and `.settings`.

In: a service's name. Out: its Settings and what builds it from a context. A decider has neither: its app holds its
decision logic alone, and its settings are those of every service. The memory mesh, the simulation and the local mesh
start every service in this way, so that none of them lists services.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, assert_never

from bulkhead.flow import Decider
from bulkhead.runtime.context import Context
from bulkhead.runtime.settings import ServiceSettings
from bulkhead_contracts import catalog
from bulkhead_infra.services import GATEWAY_URL, ServicesError, Setting

Logics = Mapping[int, Decider[Any]]
Build = Callable[[Context, Any], Any]


@dataclass(frozen=True, slots=True)
class CompositionRoot:
    """The composition root of one service."""

    name: str
    settings: type[ServiceSettings]
    build: Build


def composition_root(name: str) -> CompositionRoot:
    """The composition root of a service. Raises ServicesError."""
    if name in catalog.DECIDERS:
        return CompositionRoot(name, ServiceSettings, lambda context, settings: logics_of(name))
    build = getattr(_import_part(name, "app"), "build", None)
    if not callable(build):
        raise ServicesError(
            f"services/bulkhead_services/{name}/app.py has no `build`; write `def build(context, settings)` there"
        )
    return CompositionRoot(name, settings_of(name), build)


def settings_of(name: str) -> type[ServiceSettings]:
    """The Settings of a service. Raises ServicesError."""
    if name in catalog.DECIDERS:
        return ServiceSettings
    settings = getattr(_import_part(name, "settings"), "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, ServiceSettings)):
        way = "write `class Settings(ServiceSettings)` there"
        raise ServicesError(f"services/bulkhead_services/{name}/settings.py has no `Settings`; {way}")
    return settings


def logics_of(name: str) -> Logics:
    """The decision logic of a decider, by version. Raises ServicesError."""
    logics = getattr(_import_part(name, "app"), "LOGICS", None)
    if not isinstance(logics, Mapping):
        raise ServicesError(
            f"services/bulkhead_services/{name}/app.py has no `LOGICS`; write `LOGICS = {{1: ...}}` there"
        )
    return logics


def newest_logic() -> int:
    """The newest decision logic that every decider has. Raises ServicesError."""
    return min(max(logics_of(name)) for name in catalog.DECIDERS)


def _import_part(name: str, part: str) -> ModuleType:
    module = f"bulkhead_services.{name}.{part}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # A package that it imports is not installed.
        way = f"there is no services/bulkhead_services/{name}/{part}.py; write it, or remove the row from services.yaml"
        raise ServicesError(f"bulkhead_services.{name}: {way}") from error


class ContainerPaths(NamedTuple):
    """Paths in a container. keys: the folder of the service's own keys."""

    keys: str
    api_keys_file: str
    tenants_file: str
    policy_dir: str


def container_variables(setting: Setting, port: int, paths: ContainerPaths) -> dict[str, str]:
    """Variables by which a service in a container is given a setting. port: at which it listens."""
    match setting:
        case Setting.HTTP:
            return {"BULKHEAD_HTTP_HOST": "0.0.0.0", "BULKHEAD_HTTP_PORT": str(port)}  # noqa: S104 - its own network
        case Setting.TENANTS:
            return {"BULKHEAD_TENANTS_FILE": paths.tenants_file}
        case Setting.POLICY:
            return {"BULKHEAD_POLICY_DIR": paths.policy_dir}
        case Setting.CALLERS:
            files = {"BULKHEAD_API_KEYS_FILE": paths.api_keys_file}
            return files | {"BULKHEAD_PUBLISHERS_FILE": f"{paths.keys}/publishers.json"}
        case Setting.REDIS:
            return {"BULKHEAD_REDIS_URL_FILE": f"{paths.keys}/redis_url"}
        case Setting.PROVIDER:
            return {"OPENAI_API_KEY_FILE": f"{paths.keys}/openai_api_key"}
        case Setting.GATEWAY:
            return {"BULKHEAD_GATEWAY_URL": GATEWAY_URL}
        case Setting.LOGIC:
            # All replicas are of one program, so the newest decision logic that it has starts tasks.
            return {"BULKHEAD_LOGIC": str(newest_logic())}
        case _:
            assert_never(setting)
