"""A read of the mesh over HTTP, declared once: route, OpenAPI operation, client and command are made from its class.

In: texts of a request, or values. Out: a query, and the address that asks for it.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from bulkhead_contracts import bounds
from bulkhead_contracts.task import CALLER_ROLES
from bulkhead_contracts.types import Contract

MAX_PAGE = 100
MAX_DIGITS = 15
"""Of a whole number: a time in Unix ms has thirteen. Each field has a bound of its own, too."""
SINCE = r"[1-9][0-9]{0,6}[smhd]"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


@dataclass(frozen=True, slots=True)
class AllowedRoles:
    """Roles that may do something. needed: the role that a refusal asks for."""

    names: frozenset[str]
    needed: str


EVERY_ROLE = AllowedRoles(frozenset(CALLER_ROLES), "submitter")
SUBMITTERS = AllowedRoles(frozenset({"submitter", "operator", "evaluator"}), "submitter or operator")
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


def period_s(since: str) -> int:
    """Seconds of `90s`, `7d`. Raises ValueError for what is no period, or too long."""
    seconds = int(since[:-1]) * SECONDS[since[-1]] if re.fullmatch(SINCE, since) else 0
    if not 1 <= seconds <= bounds.MAX_SPEND_S:
        raise ValueError("no period")
    return seconds


def _check_period(since: str) -> str:
    period_s(since or "1s")
    return since


Period = Annotated[
    str,
    AfterValidator(_check_period),
    WithJsonSchema({"type": "string", "pattern": f"^{SINCE}$"}),
    Remedy("send a time like 90s, 20m, 1h or 7d, at most 31d"),
]
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


R = TypeVar("R", bound=Contract)


class Query(BaseModel, Generic[R]):
    """A read, with its parameters as fields, under the names that they have in its path and in its query string.

    The first paragraph of the docstring is the summary, the rest describes. R: the reply. name: the operation in
    OpenAPI. action: what others may not do, as in "the role auditor may not ...". note: more of the description.
    problems: statuses of its own, beside those that every read of its form has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    NAME: ClassVar[str]
    PATH: ClassVar[str]
    ACTION: ClassVar[str]
    ALLOWED: ClassVar[AllowedRoles]
    NOTE: ClassVar[str]
    PROBLEMS: ClassVar[tuple[int, ...]]

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        path: str = "",
        action: str = "",
        allowed: AllowedRoles = EVERY_ROLE,
        note: str = "",
        problems: tuple[int, ...] = (),
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        cls.NAME, cls.PATH, cls.ACTION, cls.ALLOWED = name, path, action, allowed
        cls.NOTE, cls.PROBLEMS = note, problems

    @classmethod
    def reply_model(cls) -> type[R]:
        """The model of the reply."""
        generics = (getattr(base, "__pydantic_generic_metadata__", {}).get("args") for base in cls.__mro__)
        model: type[R] = next(arguments[0] for arguments in generics if arguments)
        return model

    @classmethod
    def summary(cls) -> str:
        """The summary, without a full stop."""
        return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split()).removesuffix(".")

    @classmethod
    def description(cls) -> str:
        """The rest of the docstring, and the note."""
        details = " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[2].split())
        return " ".join(filter(None, (cls.NOTE, details)))

    @classmethod
    def in_path(cls, name: str) -> bool:
        """A parameter stands in the path, and not in the query string."""
        return f"{{{name}}}" in cls.PATH

    @classmethod
    def statuses(cls) -> tuple[int, ...]:
        """The statuses of its refusals."""
        in_path = [cls.in_path(name) for name in cls.model_fields]
        return (401, 403, *((404,) * any(in_path)), *((422,) * (not all(in_path))), 503, *cls.PROBLEMS)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """The query of a request; what else it says is not looked at. Raises ValidationError."""
        return cls.model_validate({name: text for name, text in texts.items() if name in cls.model_fields})

    @classmethod
    def remedy_of(cls, name: str) -> Remedy:
        """The advice about a parameter."""
        field = cls.model_fields.get(name)
        remedies = [part for part in field.metadata if isinstance(part, Remedy)] if field is not None else []
        return remedies[0] if remedies else Remedy("/openapi.json has the parameters of each read")

    def address(self) -> tuple[str, dict[str, str]]:
        """The path, and the parameters of the query string that are not as by default."""
        texts = {name: _as_text(value) for name, value in self.model_dump(exclude_defaults=True).items()}
        path = self.PATH.format_map({name: quote(text, safe="") for name, text in texts.items()})
        return path, {name: text for name, text in texts.items() if not self.in_path(name)}


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
