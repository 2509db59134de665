"""The rows of services.yaml: which services the mesh has, and what each is given.

In: services.yaml and the catalog. Out: `SERVICES`, one checked row per name in the order of their start; or a
ServicesError that names row and field and says what to write.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bulkhead.validation_errors import misfits
from bulkhead_contracts import catalog
from bulkhead_contracts.types import Token

FILE = Path(__file__).with_name("services.yaml")
KINDS: Mapping[str, tuple[str, ...]] = {"decider": catalog.DECIDERS, "doer": catalog.DOERS, "edge": catalog.EDGES}
SHARED_MEMORY_MIB = 256
"""The memory limit of a container whose row names none."""

Knob = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


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


class Row(BaseModel):
    """One service; the fields are explained in services.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decider", "doer", "edge"]
    drain: Annotated[int, Field(ge=1, le=9)]
    environment: tuple[Setting, ...] = ()
    knobs: dict[Knob, str] = {}
    code: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    memory_mib: Annotated[int, Field(ge=32)] = SHARED_MEMORY_MIB
    port: Annotated[int, Field(ge=0, le=65_535)] = 0

    @model_validator(mode="after")
    def _listens_where_it_is_called(self) -> Self:
        if (Setting.HTTP in self.environment) != bool(self.port):
            raise ValueError("`port` and `http` belong together; write `port: 8080`, `environment: [http]` or neither")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    services: dict[Token, Row]

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
        called = [name for name, row in self.services.items() if Setting.HTTP in row.environment]
        if len(called) != 1:
            raise ValueError(
                f"the mesh has one HTTP address and {len(called)} services with it ({', '.join(called) or 'none'}); "
                "write `http` in the environment of one row"
            )
        return self


def load(path: Path = FILE) -> Mapping[str, Row]:
    """Read and check the rows, in the order of their start. Raises ServicesError."""
    try:
        return _File.model_validate(yaml.safe_load(path.read_text())).services
    except OSError as error:
        raise ServicesError(f"{path}: {error.strerror}; restore the file from the repository") from error
    except yaml.YAMLError as error:
        raise ServicesError(f"{path} is not YAML: {error}; correct it") from error
    except ValidationError as error:
        misfit = misfits(error, _File)[0]
        known = f"; known fields are {', '.join(misfit.known)}" if misfit.known else ""
        raise ServicesError(f"{path}: {misfit}{known}") from error


def drain_groups(rows: Mapping[str, Row]) -> tuple[tuple[str, ...], ...]:
    """Names by group, the group that ends first first."""
    numbers = sorted({row.drain for row in rows.values()})
    return tuple(tuple(name for name, row in rows.items() if row.drain == number) for number in numbers)


def given(setting: Setting, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Names of the services that are given a setting."""
    return tuple(name for name, row in rows.items() if setting in row.environment)


SERVICES = load()
