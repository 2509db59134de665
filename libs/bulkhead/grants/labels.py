"""Provenance labels of a message, verified before anybody decides on it.

In: a body, who said it and in which task. Out: the same body; a label that does not verify is untrusted in it, and its
source says so to every reader after this one: to the judge, and to the person beside the answer.

A label that comes straight from its observer stands by the broker's word for the author; one that was handed on, by
its signature. A person's word on a plan counts for a decider by the signer's token alone, as that on a call does.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, get_args

from pydantic import BaseModel

from bulkhead.grants import GrantRefused, Verifier
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanDecided
from bulkhead_contracts.result import Label
from bulkhead_contracts.step import Evidence
from bulkhead_contracts.types import Body

log = Log("grants")
B = TypeVar("B", bound=Body)
M = TypeVar("M", bound=BaseModel)
UNVERIFIED = "unverified: "


@dataclass(frozen=True, slots=True)
class _LabelContext:
    """Context of a body: who said it, in which task, and who knows the keys."""

    sender: str
    tenant: str
    task: str
    verifier: Verifier

    def is_believed(self, label: Label) -> bool:
        return label.observed_by == self.sender or self.verifier.verify_label(label, self.tenant, self.task)


def verify_labels(body: B, sender: str, tenant: str, task: str, verifier: Verifier) -> B:
    """The body; itself, when all of its labels verify for the task that it is about."""
    return _verify_contract(body, _LabelContext(sender, tenant, task, verifier))


def verify_plan_word(body: Body, tenant: str, task: str, verifier: Verifier) -> Body:
    """The body; a person's word on a plan without its token, where the signer did not sign this word for the task."""
    if not isinstance(body, PlanDecided) or not body.token:
        return body
    try:
        approval = verifier.verify_approval(body.token, tenant=tenant, task=task)
        signed = (approval.approval_id, approval.arguments_sha256, approval.person, approval.role)
        if signed == (body.sha256, body.signed_sha256, body.person, body.role):
            return body
        reason = "another word was signed"
    except GrantRefused as error:
        reason = str(error)
    log.warning("plan_word_unverified", tenant=tenant, task=task, person=body.person, reason=reason)
    return body.model_copy(update={"token": ""})


def _verify_contract(value: M, reading: _LabelContext) -> M:
    changes: dict[str, object] = {}
    for name in _label_fields(type(value)):
        old = getattr(value, name)
        new = _verify_field(old, reading)
        if new is not old:
            changes[name] = new
    if isinstance(value, Evidence) and value.label.sha256 != value.content.sha256:
        changes["label"] = _mark_unverified(value.label, reading.sender)  # A good label, of another content.
    return value.model_copy(update=changes) if changes else value


def _verify_field(value: object, reading: _LabelContext) -> object:
    if isinstance(value, Label):
        return value if reading.is_believed(value) else _mark_unverified(value, reading.sender)
    if isinstance(value, tuple):
        verified_items = [_verify_field(item, reading) for item in value]
        return value if all(map(operator.is_, verified_items, value)) else tuple(verified_items)
    return _verify_contract(value, reading) if isinstance(value, BaseModel) else value


def _mark_unverified(label: Label, sender: str) -> Label:
    if not label.source.startswith(UNVERIFIED):
        log.warning("label_unverified", sender=sender, kind=label.kind, observed_by=label.observed_by)
    source = f"{UNVERIFIED}{label.source.removeprefix(UNVERIFIED)}"[: bounds.MAX_SUMMARY_CHARS]
    return label.model_copy(update={"source": source, "trust": "untrusted", "signature": ""})


@cache
def _label_fields(kind: type[BaseModel]) -> tuple[str, ...]:
    """The fields in which a label may stand."""
    return tuple(
        name
        for name, field in kind.model_fields.items()
        if any(inner is Label or _label_fields(inner) for inner in _models_in(field.annotation))
    )


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
