"""Sources of the values of a call: what a service saw, signed by it, so that nobody between has to be
believed.
"""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from .types import Contract, Name, Sha256, Summary, Token

Source = Literal["user", "operator", "retrieved", "tool", "model"]
"""Who is behind a text: the person who asked, the operator of the mesh, a document, a tool's answer, a model."""
SinkKind = Literal["recipient", "url", "path", "account", "amount", "code", "text", "other"]
Isolation = Literal["none", "process", "container", "wasm"]
"""How far what a tool runs is walled off, in rising order: in the executor's own process; a process without its
rights; a container of its own; code that has no system at all."""
Pointer = Annotated[str, Field(max_length=200, pattern=r"^(/[^/]*)*$")]
"""A place in a call's arguments (RFC 6901), `*` for every place of a list or an object."""


class Sink(Contract):
    """An argument that chooses where something goes, or what is done: what may flow into it is looked at."""

    argument: Pointer
    kind: SinkKind


class Flow(Contract):
    """The plan lets one field of an earlier call's result, whole, be one argument of a tool of this step.

    tool, argument: where to. step_id, from_tool, field: of which step's call of which tool, which field of its JSON.
    """

    tool: Name
    argument: Pointer
    step_id: Token
    from_tool: Name
    field: Pointer


class PlannedValue(Contract):
    """The value that the plan gives an argument, as the asker wrote it. Numbers are written as text."""

    argument: Pointer
    text: Summary


class PlannedCall(Contract):
    """A call that the plan foresees, at most `times` in its step. values: of arguments that choose where it goes."""

    tool: Name
    values: Annotated[tuple[PlannedValue, ...], Field(max_length=bounds.MAX_FLOWS)] = ()
    times: Annotated[int, Field(ge=1, le=bounds.MAX_PLANNED_TIMES)] = 1


class Origin(Contract):
    """One content in which a value stands. name: of the document or tool. match: how it stands there; `field` is the
    whole of a field of JSON, `field` names it then."""

    source: Source
    sha256: Sha256
    name: Summary = ""
    match: Literal["exact", "normalised", "field"]
    field: Pointer = ""
    call_id: str = ""


class ValueOrigin(Contract):
    """One value of a call's arguments, or one address, number or name within a longer text. origins: none where it
    stands nowhere in the context."""

    pointer: Pointer
    text: Summary
    origins: Annotated[tuple[Origin, ...], Field(max_length=bounds.MAX_ORIGINS)] = ()


class Attribution(Contract):
    """Sources of the values of one call, as the model gateway saw them. least: the least trusted source that was
    in the context at all: an unmatched value counts as this. shown: all sources in it, documents and tools
    by name (`retrieved:NAME`, `tool:NAME`); `unknown` besides where these are not all. signature: over the task and all
    the rest.
    """

    tool: Name
    arguments_sha256: Sha256
    values: Annotated[tuple[ValueOrigin, ...], Field(max_length=bounds.MAX_ATTRIBUTED_VALUES)] = ()
    complete: bool = True
    least: Source = "model"
    shown: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_SHOWN_SOURCES, exclude_if=operator.not_)] = ()
    observed_by: Token
    signature: Annotated[str, Field(max_length=128)] = ""
