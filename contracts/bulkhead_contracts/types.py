"""Bounded field types and the base class that every contract stands on."""

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bulkhead_contracts import bounds


class Contract(BaseModel):
    """Frozen data with bounds. Readers ignore unknown fields; writers emit exactly the schema."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), defer_build=True)


Model = TypeVar("Model", bound=BaseModel)


def order_fields(names: str = "") -> Callable[[type[Model]], type[Model]]:
    """Write these fields first, then the class's own, then what it inherits: stored bytes keep their order."""

    def reorder(model: type[Model]) -> type[Model]:
        fields = model.model_fields
        for name in dict.fromkeys((*names.split(), *model.__annotations__, *fields)):
            fields[name] = fields.pop(name)
        model.model_rebuild(force=True)
        return model

    return reorder


def list_unknown_nested_fields(model: type[BaseModel], document: object, place: str = "") -> Iterator[str]:
    """Fields within a document's fields, at any depth, that the model ignores: in what people write they are slips.

    Each is told with its place and the fields that there are. Those of the document itself are the model's to refuse.
    """
    if not isinstance(document, Mapping):
        return
    for name, value in document.items():
        field = model.model_fields.get(name)
        if field is None:
            if place:
                yield f"{place}{name} is no field; there are {', '.join(sorted(model.model_fields))}"
            continue
        models = tuple(_models_in(field.annotation))
        for row in value if isinstance(value, (list, tuple)) else (value,):
            if len(models) == 1:
                yield from list_unknown_nested_fields(models[0], row, f"{place}{name}.")
                continue
            findings = [tuple(list_unknown_nested_fields(nested, row, f"{place}{name}.")) for nested in models]
            yield from min(findings, key=len, default=())  # Of several models that a value may have, the nearest.


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (dict, Mapping):
        return  # Its keys are names of whoever wrote it.
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""One subject token: tenant, task, service or step id."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest16 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
AskerDigest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32})?$")]
"""Tells the people of a tenant apart without naming them; "" where it is not known."""
Marker = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
"""First 12 hex digits of a content's sha256; what an answer cites as [#marker]."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_NAME_CHARS)]
MediaType = Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_MEDIA_TYPE_CHARS)]
Summary = Annotated[str, StringConstraints(max_length=bounds.MAX_SUMMARY_CHARS)]
ReleaseRef = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31}\.[1-9][0-9]{0,8}(\.canary)?)?$")]
"""A release of prompts, or the canary beside it: `production.12`, `production.12.canary`; "" for those that are
shipped."""
WorkflowReleaseRef = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9-]{0,39}\.[1-9][0-9]{0,8}(\.canary)?)?$")]
"""A release of a workflow by which a run's version was chosen, or the canary beside it: `weekly-report.3`,
`weekly-report.3.canary`; "" of a run that was shared out by none."""
Title = Annotated[str, StringConstraints(max_length=bounds.MAX_TITLE_CHARS)]
Reason = Annotated[str, StringConstraints(max_length=bounds.MAX_REASON_CHARS)]
UnixMs = Annotated[int, Field(ge=0, le=2**53)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,64}$")]
"""A name that spending is counted under (agent, workflow, feature); "" where there is none."""
Constraints = Annotated[
    tuple[Annotated[str, Field(max_length=bounds.MAX_CONSTRAINT_CHARS)], ...],
    Field(max_length=bounds.MAX_CONSTRAINTS, exclude_if=operator.not_),
]
"""On values of arguments, in the language of `bulkhead.policy.constraints`; not written when there are none."""
Count = Annotated[int, Field(ge=0, le=2**53)]
UsdMicros = Annotated[int, Field(ge=0, le=bounds.MAX_COST_USD_MICROS)]
TokenCount = Annotated[int, Field(ge=0, le=bounds.MAX_TOKENS)]


class Body(Contract):
    """Body of a message. type, version: those of `ce-type`. can_wait: no work waits for it, so it may be said a few
    milliseconds later, together with others."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int]
    CAN_WAIT: ClassVar[bool]

    def __init_subclass__(cls, *, type: str, version: int = 1, can_wait: bool = False, **config: Any) -> None:
        super().__init_subclass__(**config)
        cls.TYPE, cls.VERSION, cls.CAN_WAIT = type, version, can_wait

    @classmethod
    @cache
    def ce_type(cls) -> str:
        """`mesh.step.assigned.v1`."""
        return f"{cls.TYPE}.v{cls.VERSION}"

    def encode(self) -> bytes:
        """Canonical bytes: the same value gives the same bytes on every machine."""
        return self.__pydantic_serializer__.to_json(self)  # As model_dump_json, without a text in between.
