"""The breakers' owner: the watcher that leads writes down how they stand; doers read it, and so does who leads next.

In: breakers whose phase changed in the fold, and what stands in the control entries: resets by people, decisions of the
leader before. Out: control entries. The newer entry wins: a fold that began late learns what it did not see.
"""

from dataclasses import replace

from bulkhead.bus.port import Bus, WrongLastSequence
from bulkhead.health.breakers.registry import BreakerOpening, BreakerRegistry, Key
from bulkhead.health.breakers.state_machine import BreakerState
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.control import Breaker as BreakerEntry
from bulkhead_services.budget.watch.notices import DueNotices

PATTERN = "$KV.CONTROL.breaker.>"


class BreakerEntryOwner:
    """Keeps the control entries and the fold's breakers the same. message_key: of the service that owns them."""

    def __init__(self, bus: Bus, message_key: bytes) -> None:
        self._bus, self._message_key = bus, message_key
        self._after = 0
        self._sequences: dict[str, int] = {}
        """Sequence of the entry that stands, by its subject."""
        self._changes: dict[str, tuple[str, ...]] = {}
        """Requests of people that it remembers: a repeat of one does not close what has opened since."""
        self._token_entries: dict[str, BreakerEntry] = {}
        """What is not closed and known by its token alone, as the version before wrote it, by its subject."""

    async def sync_entries(self, breakers: BreakerRegistry, notices: DueNotices) -> None:
        """Learn what stands, then write what changed. Raises BusError."""
        while page := await self._bus.read(subjects.CONTROL_STREAM, PATTERN, after=self._after):
            for stored in page:
                self._sequences[stored.subject] = stored.sequence
                entry = BreakerEntry.model_validate_json(stored.body)
                self._changes[stored.subject] = entry.changes
                self._token_entries.pop(stored.subject, None)
                if not entry.called and entry.phase != "closed":
                    self._token_entries[stored.subject] = entry
                learn_entry(breakers, entry)
                notices.apply_breaker_entry(entry)
            self._after = page[-1].sequence
        for key, breaker in list(breakers.changed.items()):
            if await self._write_entry(entry_of(key, breaker, breakers.opening_of(key))):
                breakers.changed.pop(key, None)

    async def _write_entry(self, entry: BreakerEntry) -> bool:
        """Under the whole name; what stands under its token alone is over then, for two may not say how it stands."""
        subject, token_subject = (
            subjects.breaker_key(entry.scope, entry.tenant, name) for name in (entry.called, entry.name)
        )
        if subject != token_subject and (old := self._token_entries.get(token_subject)) is not None:
            moved = old.model_copy(update={"phase": "closed", "reason": f"it stands as {entry.called}"})
            if not await self._put_entry(token_subject, moved):
                return False
            del self._token_entries[token_subject]
        return await self._put_entry(subject, entry.model_copy(update={"changes": self._changes.get(subject, ())}))

    async def _put_entry(self, subject: str, entry: BreakerEntry) -> bool:
        after, body = self._sequences.get(subject, 0), entry.model_dump_json().encode()
        try:
            ack = await self._bus.publish(
                subject,
                body,
                {"content-type": envelope.CONTENT_TYPE},
                envelope.message_id(self._message_key, subject, f"{after}/{entry.since_unix_ms}/{entry.phase}"),
                expect_last_on_subject=after,
            )
        except WrongLastSequence:
            return False  # Somebody was here: it is read first, at the next time.
        self._sequences[subject] = ack.sequence
        return True


def learn_entry(breakers: BreakerRegistry, entry: BreakerEntry) -> None:
    """Tell the fold what an entry that stands says. One that is known by its token alone is of the first such name."""
    names = (name for scope, tenant, name in breakers.states if (scope, tenant) == (entry.scope, entry.tenant))
    full_name = entry.called or next((name for name in names if subjects.as_token(name) == entry.name), entry.name)
    key = (entry.scope, entry.tenant, full_name)
    breaker = breakers.states.get(key)
    if breaker is not None and breaker.since_unix_ms > entry.since_unix_ms:
        return
    if entry.by:
        breakers.reset_breaker(key, entry.by, entry.since_unix_ms)
    elif breaker is None or (breaker.phase, breaker.since_unix_ms) != (entry.phase, entry.since_unix_ms):
        usual, first = (breaker.usual, breaker.first) if breaker else (0, 0)
        since, until = entry.since_unix_ms, entry.until_unix_ms
        fresh = BreakerState(entry.scope, key[2], entry.phase, since, until, entry.reason, usual=usual, first=first)
        opening = BreakerOpening(entry.evidence, entry.actors, entry.tasks)
        breakers.adopt_breaker(key, replace(fresh, openings=entry.openings), opening)
    else:
        breakers.changed.pop(key, None)


def entry_of(key: Key, breaker: BreakerState, opening: BreakerOpening) -> BreakerEntry:
    """BreakerEntry for doers and people."""
    return BreakerEntry(
        scope=key[0],  # type: ignore[arg-type]
        tenant=key[1],
        name=subjects.as_token(key[2]),
        phase=breaker.phase,
        called=key[2][: bounds.MAX_NAME_CHARS],
        reason=breaker.reason[: bounds.MAX_REASON_CHARS],
        since_unix_ms=breaker.since_unix_ms,
        until_unix_ms=breaker.until_unix_ms,
        openings=breaker.openings,
        evidence=tuple(item[: bounds.MAX_SUMMARY_CHARS] for item in opening.evidence[: bounds.MAX_TRIP_EVIDENCE]),
        actors=tuple(actor[: bounds.MAX_SUMMARY_CHARS] for actor in opening.actors[: bounds.MAX_TRIP_AGENTS]),
        tasks=opening.tasks[: bounds.MAX_TRIP_EVIDENCE],
    )
