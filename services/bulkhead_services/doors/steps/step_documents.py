"""Delegated steps as programs outside are given them: the one that its holder works on, the list of open ones.

In: feeds of hand-overs, blobs. Out: `HandedStep`, with texts in place of references, each bounded; `OpenStepList`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead_contracts import bounds
from bulkhead_contracts.delegation import HandedInput, HandedStep, OpenStep, OpenStepList
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import StepInput
from bulkhead_services.doors.steps.feed import StepFeed
from bulkhead_services.doors.steps.open_steps import OpenHandOver

MAX_TEXTS_CHARS = bounds.MAX_ANSWER_CHARS
"""Of all inputs together: a step fits one message. What is cut says so."""
UNREADABLE = "its text cannot be read any more"
MAX_SHOWN = 200


class StepTexts(NamedTuple):
    """The texts of a step."""

    objective: str
    inputs: tuple[HandedInput, ...]


async def texts_of(blobs: Blobs, feed: StepFeed) -> StepTexts:
    """Read them. Raises BlobMissing, BlobCorrupt where the objective cannot be read, BusError."""
    request = feed.request
    assert request is not None
    room, inputs = MAX_TEXTS_CHARS, []
    for step_input in request.inputs:
        inputs.append(handed_input := await _read_input(blobs, feed.tenant, step_input, room))
        room -= len(handed_input.text)
    objective, _ = await _read_text(blobs, feed.tenant, request.objective, bounds.MAX_OBJECTIVE_CHARS)
    return StepTexts(objective, tuple(inputs))


def build_handed_step(feed: StepFeed, texts: StepTexts, key: str, number: int, beat_s: float) -> HandedStep:
    """The step for its holder."""
    request = feed.request
    assert request is not None
    return HandedStep(
        id=feed.call_id,
        key=key,
        number=number,
        task=feed.task,
        step=request.step.id,
        role=request.delegated.role,
        attempt=request.attempt,
        title=request.step.title,
        instruction=request.step.instruction,
        acceptance=request.step.acceptance,
        objective=texts.objective,
        inputs=texts.inputs,
        notes=request.notes,
        tools=tuple(tool.name for tool in request.tools),
        deadline_unix_ms=feed.deadline_unix_ms,
        beat_s=beat_s,
        traceparent=feed.traceparent,
    )


async def _read_input(blobs: Blobs, tenant: str, given: StepInput, most: int) -> HandedInput:
    result = given.result
    missing = [omission.what for omission in result.completeness.omissions]
    text, cut = result.summary, False
    if result.content is not None:
        try:
            text, cut = await _read_text(blobs, tenant, result.content, most)
        except (BlobMissing, BlobCorrupt):
            missing.append(UNREADABLE)
    return HandedInput(
        step=given.step_id,
        title=given.title,
        text=text,
        cut=cut,
        standing=result.standing,
        standing_reason=result.standing_reason,
        missing=tuple(missing),
    )


async def _read_text(blobs: Blobs, tenant: str, ref: ContentRef, most: int) -> tuple[str, bool]:
    text = await blobs.get_text(tenant, ref)
    return text[:most], len(text) > most


def open_step_list(steps: Iterable[OpenHandOver], now_unix_ms: int) -> OpenStepList:
    """Those that can still be answered."""
    listed = [step for handover in steps if (step := _open_step(handover, now_unix_ms)) is not None]
    listed.sort(key=lambda step: (step.asked_unix_ms, step.id))
    return OpenStepList(steps=tuple(listed[:MAX_SHOWN]), more=max(0, len(listed) - MAX_SHOWN))


def _open_step(one: OpenHandOver, now_unix_ms: int) -> OpenStep | None:
    feed, request, taking = one.feed, one.feed.request, one.feed.taken
    if request is None or feed.is_over or feed.deadline_unix_ms <= now_unix_ms:
        return None
    return OpenStep(
        id=feed.call_id,
        task=feed.task,
        step=request.step.id,
        role=request.delegated.role,
        identity=one.identity.name,
        holder=taking.holder if taking is not None else "",
        number=taking.number if taking is not None else 0,
        asked_unix_ms=feed.opened_unix_ms,
        taken_unix_ms=feed.taken_unix_ms,
        held_until_unix_ms=feed.held_until_unix_ms,
        deadline_unix_ms=feed.deadline_unix_ms,
    )
