"""One watcher's stream: stored events in order, each once, and the text whole; a slow reader is simply behind.

In: a feed, the position that the client names. Out: events as they come to be. Nothing is queued per client: what
is owed is computed from the feed when the client can take more, so a slow one gets fewer and larger pieces.
"""

from collections.abc import AsyncIterator, Callable

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import BusError
from bulkhead.telemetry.log import Log
from bulkhead_contracts.tool import LiveCall
from bulkhead_services.gateway.read_model.events import (
    Event,
    FeedFact,
    SentText,
    StreamPosition,
    call_event,
    owed_final,
    owed_live,
    step_key,
    text_event,
    to_json,
)
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

log = Log("gateway.stream")


async def watch_task(
    feeds: InboxFeeds,
    feed: InboxFeed,
    blobs: Blobs,
    position: StreamPosition,
    may_read_words: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Event]:
    """Events after `position` until the task has ended, the bus fails or this replica closes. may_read_words: asked
    before what a call looks at is told."""

    told_call = 0

    def tell_call(number: int, call: LiveCall) -> Event:
        nonlocal told_call
        told_call = number
        return call_event(position, feed.task, call, words=may_read_words())

    with feeds.watch_feed(feed):
        try:
            await feed.refresh()
            told_call = _last_told_call(feed, position)
            while not feeds.is_closing:
                seen_version = feed.version
                for fact in feed.facts_after(position):
                    for numbered_call in feed.calls_after(told_call, None if fact.last else fact.time_unix_ms):
                        yield tell_call(*numbered_call)
                    for event in await _events_of(fact, feed, blobs, position):
                        yield event
                    if fact.last:
                        return
                for numbered_call in feed.calls_after(told_call):
                    yield tell_call(*numbered_call)
                for event in _live_events(feed, position):
                    yield event
                if feed.has_ended and feed.version == seen_version:
                    return  # And not with what came to be while this client took its time.
                await feed.wait_for_change(seen_version)
        except BusError as error:
            # The client comes back with its last id; a half-sent event would be worse than none.
            log.warning("stream_cut", task=feed.task, reason=str(error))


def _last_told_call(feed: InboxFeed, position: StreamPosition) -> int:
    """Number of the last word about a call before the client's last stored event: what came after that it may have, and
    is told again."""
    before = [fact.time_unix_ms for fact in feed.facts if fact.sequence <= position.sequence]
    earlier_calls = feed.calls_after(0, before[-1]) if before else []
    return earlier_calls[-1][0] if earlier_calls else 0


async def _events_of(fact: FeedFact, feed: InboxFeed, blobs: Blobs, position: StreamPosition) -> list[Event]:
    events: list[Event] = []
    data = dict(fact.data)
    text = await content_text(fact, feed, blobs) if fact.fills_text or fact.last else None
    key = step_key(fact.step_id)
    if fact.fills_text and text is not None:
        owed = owed_final(position.open.get(key, SentText()), text)
        if owed is not None:
            position.open[key] = SentText().with_piece(text, -1)
            events.append(text_event(position, fact.step_id, fact.attempt, "", owed))
    if fact.name == "step.ended":
        position.open.pop(key, None)
    if fact.last:
        position.open.clear()
        data["answer"] = text
    if text is None and fact.content is not None and (fact.fills_text or fact.last):
        data["text_missing"] = "the stored text cannot be read; it may have expired"
    position.sequence, position.part = fact.sequence, fact.part
    events.append(Event(fact.name, to_json(data), position.to_event_id()))
    return events


async def content_text(fact: FeedFact, feed: InboxFeed, blobs: Blobs) -> str | None:
    """The text behind a fact; None when there is none or it cannot be read any more. Raises BusError."""
    if fact.content is None:
        return None
    try:
        return await blobs.get_text(feed.tenant, fact.content)
    except (BlobMissing, BlobCorrupt) as error:
        log.warning("text_missing", task=feed.task, reason=str(error))
        return None


def _live_events(feed: InboxFeed, position: StreamPosition) -> list[Event]:
    events = []
    for step_id, live in list(feed.live.items()):
        if feed.view.delivery == "held" or (feed.view.delivery == "verified" and not live.verified):
            continue
        key = step_key(step_id)
        sent = position.open.get(key, SentText())
        owed = owed_live(sent, live)
        if owed is None:
            continue
        offset, piece, _ = owed
        position.open[key] = (SentText() if offset == 0 else sent).with_piece(piece, live.epoch)
        events.append(text_event(position, step_id, live.attempt, live.call_id, owed))
    return events
