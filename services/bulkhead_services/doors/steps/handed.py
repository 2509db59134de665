"""A delegated step as its holder is handed it: texts in place of references, each bounded.

In: the feed of a hand-over, blobs. Out: `Handed`.
"""

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import StepInput
from bulkhead_services.doors.steps.feed import StepFeed
from bulkhead_services.doors.steps.port import MAX_TEXT_CHARS, Given, Handed

MAX_TEXTS_CHARS = 1024 * 1024
"""Of all inputs together."""
UNREADABLE = "its text cannot be read any more"


async def handed(blobs: Blobs, feed: StepFeed, key: str, number: int, beat_s: float) -> Handed:
    """The step for its holder. Raises BusError."""
    request = feed.request
    assert request is not None
    room, inputs = MAX_TEXTS_CHARS, []
    for given in request.inputs:
        inputs.append(found := await _given(blobs, feed.tenant, given, min(room, MAX_TEXT_CHARS)))
        room -= len(found.text)
    objective, _ = await _text(blobs, feed.tenant, request.objective, MAX_TEXT_CHARS)
    return Handed(
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
        objective=objective,
        inputs=tuple(inputs),
        notes=request.notes,
        tools=tuple(tool.name for tool in request.tools),
        deadline_unix_ms=feed.deadline_unix_ms,
        beat_s=beat_s,
        traceparent=feed.traceparent,
    )


async def _given(blobs: Blobs, tenant: str, given: StepInput, most: int) -> Given:
    result = given.result
    missing = [omission.what for omission in result.completeness.omissions]
    text, cut = result.summary, False
    if result.content is not None:
        try:
            text, cut = await _text(blobs, tenant, result.content, most)
        except (BlobMissing, BlobCorrupt):
            missing.append(UNREADABLE)
    return Given(
        step=given.step_id,
        title=given.title,
        text=text,
        cut=cut,
        standing=result.standing,
        standing_reason=result.standing_reason,
        missing=tuple(missing),
    )


async def _text(blobs: Blobs, tenant: str, ref: ContentRef, most: int) -> tuple[str, bool]:
    text = await blobs.text(tenant, ref)
    return text[:most], len(text) > most
