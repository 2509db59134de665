"""The rows of services.yaml: which services the mesh has, and what each is given.

In: services.yaml and the catalog. Out: `SERVICES`, one checked row per name in the order of their start, and
`EVERY_SERVICE` with those of Kubernetes alone; or a ServicesError that names row and field and says what to write.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import catalog
from bulkhead_contracts.types import Token

FILE = Path(__file__).with_name("services.yaml")
KINDS: Mapping[str, tuple[str, ...]] = {
    "decider": catalog.DECIDERS,
    "doer": catalog.DOERS,
    "edge": (*catalog.EDGES, *catalog.IN_KUBERNETES),
}
SHARED_MEMORY_MIB = 256
"""The memory limit of a container whose row names none."""
SHARED_CPU_MILLI = 250
"""The CPU that Kubernetes keeps free for a container whose row names none, in thousandths of a core."""

Knob = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
"""Normalized and without a version: requirements.lock has it."""


class ServicesError(ValueError):
    """The services do not fit together; the message names row and field and says what to write."""


class Setting(StrEnum):
    """A setting of the mesh that a service may be given; explained in services.yaml."""

    HTTP = "http"
    CALLERS = "callers"
    TENANTS = "tenants"
    REDIS = "redis"
    PROVIDER = "provider"
    LOGIC = "logic"
    POLICY = "policy"
    GATEWAY = "gateway"


class Scaling(BaseModel):
    """Replicas that an autoscaler runs; the fields are explained in services.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Annotated[int, Field(ge=0, le=1_000)]
    max: Annotated[int, Field(ge=1, le=1_000)]
    lag: Annotated[int, Field(ge=0, le=100_000)] = 0
    load: bool = False
    calm_s: Annotated[int, Field(ge=0, le=3_600)] = 300

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"`min` {self.min} is above `max` {self.max}; write the smaller number as `min`")
        return self


class ServiceDefinition(BaseModel):
    """One service; the fields are explained in services.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decider", "doer", "edge"]
    drain: Annotated[int, Field(ge=1, le=9)]
    environment: tuple[Setting, ...] = ()
    knobs: dict[Knob, str] = {}
    code: tuple[str, ...] = ()
    packages: tuple[PackageName, ...] = ()
    memory_mib: Annotated[int, Field(ge=32)] = SHARED_MEMORY_MIB
    cpu_milli: Annotated[int, Field(ge=10, le=64_000)] = SHARED_CPU_MILLI
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    only: Literal["", "kubernetes"] = ""
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _listens_where_it_is_called(self) -> Self:
        if (Setting.HTTP in self.environment) != bool(self.port):
            raise ValueError("`port` and `http` belong together; write `port: 8080`, `environment: [http]` or neither")
        return self

    @model_validator(mode="after")
    def _is_there_where_it_is_called(self) -> Self:
        if self.scaling is not None and not self.scaling.min and self.kind != "decider":
            raise ValueError(
                "`scaling.min: 0` is for deciders alone: their messages and timers wait in the inbox. Requests to an "
                "edge would be lost, and nobody would tell a doer's load; write 1 or more"
            )
        return self


class _ServicesFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    services: dict[Token, ServiceDefinition]

    @model_validator(mode="after")
    def _fits_the_catalog(self) -> Self:
        for kind, names in KINDS.items():
            for name in names:
                if name not in self.services:
                    raise ValueError(f"services.{name}: the row is missing; write `{name}: {{kind: {kind}, drain: 3}}`")
        for name, row in self.services.items():
            if name not in KINDS[row.kind]:
                way = f"add it to {row.kind.upper()}S in contracts/bulkhead_contracts/catalog.py, or correct the row"
                raise ValueError(f"services.{name}.kind: the catalog has no {row.kind} of this name; {way}")
            if (row.only == "kubernetes") != (name in catalog.IN_KUBERNETES):
                raise ValueError(
                    f"services.{name}.only: `kubernetes` belongs to rows of catalog.IN_KUBERNETES, and to no other"
                )
        for name, row in self.services.items():
            if row.scaling is not None and bool(row.scaling.lag) != (name in catalog.INBOXES):
                raise ValueError(f"services.{name}.scaling.lag: a service with an inbox has it, and no other")
        listening: dict[int, str] = {}
        for name, row in self.services.items():
            if row.port and (holder := listening.setdefault(row.port, name)) != name:
                raise ValueError(f"services.{name}.port: {holder} has port {row.port} already; write another")
        return self


def load_services(path: Path = FILE) -> Mapping[str, ServiceDefinition]:
    """Read and check the rows, in the order of their start. Raises ServicesError."""
    try:
        return _ServicesFile.model_validate(yaml.safe_load(path.read_text())).services
    except OSError as error:
        raise ServicesError(f"{path}: {error.strerror}; restore the file from the repository") from error
    except yaml.YAMLError as error:
        raise ServicesError(f"{path} is not YAML: {error}; correct it") from error
    except ValidationError as error:
        misfit = find_misfits(error, _ServicesFile)[0]
        known_fields = f"; known fields are {', '.join(misfit.known)}" if misfit.known else ""
        raise ServicesError(f"{path}: {misfit}{known_fields}") from error


def port_variable(name: str) -> str:
    """The variable of compose and the command line that chooses the port at which people call a service."""
    return "BULKHEAD_HTTP_PORT" if name == "gateway" else f"BULKHEAD_{name.upper()}_PORT"


def drain_groups(rows: Mapping[str, ServiceDefinition]) -> tuple[tuple[str, ...], ...]:
    """Names by group, the group that ends first first."""
    numbers = sorted({row.drain for row in rows.values()})
    return tuple(tuple(name for name, row in rows.items() if row.drain == number) for number in numbers)


def services_given(setting: Setting, rows: Mapping[str, ServiceDefinition]) -> tuple[str, ...]:
    """Names of the services that are given a setting."""
    return tuple(name for name, row in rows.items() if setting in row.environment)


EVERY_SERVICE = load_services()
"""Also those of Kubernetes alone."""
SERVICES: Mapping[str, ServiceDefinition] = {name: row for name, row in EVERY_SERVICE.items() if not row.only}
"""Those of every mesh."""
GATEWAY_URL = f"http://gateway:{EVERY_SERVICE['gateway'].port}"
"""Among containers and in a cluster."""
