"""Provenance labels of a message, verified before anybody decides on it.

In: a body, who said it and in which task. Out: the same body; a label that does not verify is untrusted in it, and its
source says so to every reader after this one: to the judge, and to the person beside the answer.

A label that comes straight from its observer stands by the broker's word for the author; one that was handed on, by
its signature.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, get_args

from pydantic import BaseModel

from bulkhead.grants import Verifier
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Label
from bulkhead_contracts.step import Evidence
from bulkhead_contracts.types import Body

log = Log("grants")
B = TypeVar("B", bound=Body)
M = TypeVar("M", bound=BaseModel)
UNVERIFIED = "unverified: "


@dataclass(frozen=True, slots=True)
class _Reading:
    """Who said a body, in which task, and who knows the keys."""

    sender: str
    tenant: str
    task: str
    verifier: Verifier

    def believes(self, label: Label) -> bool:
        return label.observed_by == self.sender or self.verifier.label(label, self.tenant, self.task)


def verified(body: B, sender: str, tenant: str, task: str, verifier: Verifier) -> B:
    """The body; itself, when all of its labels verify for the task that it is about."""
    return _contract(body, _Reading(sender, tenant, task, verifier))


def _contract(value: M, reading: _Reading) -> M:
    changes: dict[str, object] = {}
    for name in _holders(type(value)):
        old = getattr(value, name)
        new = _field(old, reading)
        if new is not old:
            changes[name] = new
    if isinstance(value, Evidence) and value.label.sha256 != value.content.sha256:
        changes["label"] = _unverified(value.label, reading.sender)  # A good label, of another content.
    return value.model_copy(update=changes) if changes else value


def _field(value: object, reading: _Reading) -> object:
    if isinstance(value, tuple):
        read = tuple(_field(one, reading) for one in value)
        return read if any(new is not old for new, old in zip(read, value, strict=True)) else value
    if isinstance(value, Label):
        return value if reading.believes(value) else _unverified(value, reading.sender)
    return _contract(value, reading) if isinstance(value, BaseModel) else value


def _unverified(label: Label, sender: str) -> Label:
    if not label.source.startswith(UNVERIFIED):
        log.warning("label_unverified", sender=sender, kind=label.kind, observed_by=label.observed_by)
    source = f"{UNVERIFIED}{label.source.removeprefix(UNVERIFIED)}"[: bounds.MAX_SUMMARY_CHARS]
    return label.model_copy(update={"source": source, "trust": "untrusted", "signature": ""})


@cache
def _holders(kind: type[BaseModel]) -> tuple[str, ...]:
    """The fields in which a label may stand."""
    return tuple(
        name
        for name, field in kind.model_fields.items()
        if any(inner is Label or _holders(inner) for inner in _contracts(field.annotation))
    )


def _contracts(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _contracts(inner)
