"""A read of the mesh over HTTP as one declared row: route, OpenAPI operation, client and command are made from it.

In: a name, a path, models of parameters and reply, the roles that may read. Out: an address, and parameters as their
texts say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Generic, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from bulkhead_contracts import bounds
from bulkhead_contracts.types import Contract

MAX_PAGE = 100
MAX_DIGITS = 6


@dataclass(frozen=True, slots=True)
class AllowedRoles:
    """Roles that may do something. needed: the role that a refusal asks for."""

    names: frozenset[str]
    needed: str


EVERY_ROLE = AllowedRoles(frozenset({"submitter", "operator", "auditor", "approver"}), "submitter")
SUBMITTERS = AllowedRoles(frozenset({"submitter", "operator"}), "submitter or operator")
APPROVERS = AllowedRoles(frozenset({"approver", "operator"}), "approver or operator")
OVERSEERS = AllowedRoles(frozenset({"operator", "auditor"}), "operator")
"""Roles that see what all people of the tenant spend and do."""
OPERATORS = AllowedRoles(frozenset({"operator"}), "operator")


@dataclass(frozen=True, slots=True)
class Remedy:
    """Advice about a parameter that does not fit; a refusal carries it, and the limit where there is one."""

    hint: str
    limit: int | None = None


def _parse_whole(value: object) -> object:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS
    return int(str(value)) if digits else value


def _parse_flag(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _split_choices(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) and value else value or ()


Whole = BeforeValidator(_parse_whole)
Choices = BeforeValidator(_split_choices)
Flag = Annotated[bool, BeforeValidator(_parse_flag), Remedy("send true or false")]
PageSize = Annotated[
    int,
    Field(ge=1, le=MAX_PAGE, description="Rows per page"),
    Whole,
    Remedy(f"send a number from 1 to {MAX_PAGE}", MAX_PAGE),
]
Word = Annotated[
    str, Field(max_length=bounds.MAX_NAME_CHARS), Remedy(f"send at most {bounds.MAX_NAME_CHARS} characters")
]
Id = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})]
TaskId = Annotated[Id, Field(description="The task's id")]


class Parameters(BaseModel):
    """Parameters of a read: those in its path, then those of its query string, under the names that they have there."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """The parameters that a request names; what else it says is not looked at. Raises ValidationError."""
        return cls.model_validate({name: text for name, text in texts.items() if name in cls.model_fields})

    @classmethod
    def remedy_of(cls, name: str) -> Remedy:
        """The advice about one of them."""
        field = cls.model_fields.get(name)
        remedies = [part for part in field.metadata if isinstance(part, Remedy)] if field is not None else []
        return remedies[0] if remedies else Remedy("/openapi.json has the parameters of each read")

    def to_texts(self) -> dict[str, str]:
        """The parameters that are not as by default, as a request says them."""
        return {name: _as_text(value) for name, value in self.model_dump(exclude_defaults=True).items()}


def _as_text(value: object) -> str:
    return (
        ",".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )


class TaskParameters(Parameters):
    """The parameters of a read about one task."""

    task_id: TaskId


P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Contract)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query(Generic[P, R]):
    """A read. name: its operation in OpenAPI. action: what others may not do, as in "the role auditor may not ...".
    problems: statuses of its own, beside those that every read of its form has."""

    name: str
    path: str
    parameters: type[P]
    reply: type[R]
    summary: str
    action: str
    allowed: AllowedRoles = EVERY_ROLE
    description: str = ""
    problems: tuple[int, ...] = ()

    def address(self, parameters: P) -> tuple[str, dict[str, str]]:
        """The path, and the query string's parameters."""
        texts = parameters.to_texts()
        path = self.path.format_map({name: quote(text, safe="") for name, text in texts.items()})
        return path, {name: text for name, text in texts.items() if not self.in_path(name)}

    def in_path(self, name: str) -> bool:
        """A parameter stands in the path, and not in the query string."""
        return f"{{{name}}}" in self.path

    def statuses(self) -> tuple[int, ...]:
        """The statuses of its refusals."""
        names = [self.in_path(name) for name in self.parameters.model_fields]
        return (401, 403, *((404,) * any(names)), *((422,) * (not all(names))), 503, *self.problems)
