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


TextTest = Literal["is", "contains", "starts_with", "ends_with", "at_least", "at_most"]
SelectorTest = Literal[TextTest, "largest", "smallest", "first", "last", "only", "every"]


class Selector(Contract):
    """One condition on the records of a result, so that the plan chooses among them and no model does.

    A record of `/mails/*/from` is each `/mails/*`; of a field without `*` it is the result of each call; `/lines/*`
    is each line of a text, `/urls/*` each link in it. field: of the record, from there on (`/sender`). is, contains,
    starts_with, ends_with, at_least, at_most: against `text`. largest, smallest: in `field`. first, last, only: by
    place alone. every: each that is left may flow; else all that are left must say the same.
    """

    test: SelectorTest
    field: Annotated[Pointer, Field(exclude_if=operator.not_)] = ""
    text: Annotated[Summary, Field(exclude_if=operator.not_)] = ""


class Flow(Contract):
    """The plan lets one field of an earlier call's result, whole, be one argument of a tool of this step.

    tool, argument: where to. step_id, from_tool, field: of which step's call of which tool, which field of its JSON.
    where: of which records, one condition after the other. operand: name of the field in `PlannedValue.calculate` of
    this argument; with one it is no argument by itself.
    """

    tool: Name
    argument: Pointer
    step_id: Token
    from_tool: Name
    field: Pointer
    where: Annotated[tuple[Selector, ...], Field(max_length=bounds.MAX_SELECTORS, exclude_if=operator.not_)] = ()
    operand: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,15})?$", exclude_if=operator.not_)] = ""


class PlannedValue(Contract):
    """The value that the plan gives an argument, as the asker wrote it, or what the plan holds a figure to. Numbers are
    written as text.

    at_least, at_most: of a number or a day, either or both; a number is 0 at least where nothing else is said.
    calculate: `net * (1 + 19%)`, `sum(lines)`, `due + 14 days`: what it equals, over operands of flows and literals.
    """

    argument: Pointer
    text: Summary = ""
    at_least: Annotated[Summary, Field(exclude_if=operator.not_)] = ""
    at_most: Annotated[Summary, Field(exclude_if=operator.not_)] = ""
    calculate: Annotated[Summary, Field(exclude_if=operator.not_)] = ""

    @property
    def is_literal(self) -> bool:
        """True for a value, and no figure that the plan bounds or calculates."""
        return not (self.at_least or self.at_most or self.calculate)


class PlannedCall(Contract):
    """A call that the plan foresees, at most `times` in its step. values: of arguments that choose where it goes."""

    tool: Name
    values: Annotated[tuple[PlannedValue, ...], Field(max_length=bounds.MAX_FLOWS)] = ()
    times: Annotated[int, Field(ge=1, le=bounds.MAX_PLANNED_TIMES)] = 1


class Origin(Contract):
    """One content in which a value stands. name: of the document or tool. match: how it stands there; `field` is the
    whole of a field of JSON, `field` names it then. planned: digest of the plan's flow with selectors, or of its
    calculation, of which the value is the outcome."""

    source: Source
    sha256: Sha256
    name: Summary = ""
    match: Literal["exact", "normalised", "field"]
    field: Pointer = ""
    call_id: str = ""
    planned: Annotated[str, Field(max_length=64, exclude_if=operator.not_)] = ""


class ValueOrigin(Contract):
    """One value of a call's arguments, or one address, number or name within a longer text. origins: none where it
    stands nowhere in the context. expected: what a rule of the plan finds for the argument, where that is another."""

    pointer: Pointer
    text: Summary
    expected: Annotated[Summary, Field(exclude_if=operator.not_)] = ""
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
