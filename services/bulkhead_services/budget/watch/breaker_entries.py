"""The breakers' owner: the watcher that leads writes down how they stand; doers read it, and so does who leads next.

In: breakers whose phase changed in the fold, and what stands in the control entries: resets by people, decisions of the
leader before. Out: control entries. The newer entry wins: a fold that began late learns what it did not see.
"""

from dataclasses import replace

from bulkhead.bus.port import Bus, WrongLastSequence
from bulkhead.health.breakers.registry import Circuits, Key
from bulkhead.health.breakers.state_machine import Breaker
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.control import Breaker as Entry
from bulkhead_services.budget.watch.notices import Notices

PATTERN = "$KV.CONTROL.breaker.>"


class Owner:
    """Keeps the control entries and the fold's breakers the same. message_key: of the service that owns them."""

    def __init__(self, bus: Bus, message_key: bytes) -> None:
        self._bus, self._message_key = bus, message_key
        self._after = 0
        self._stands: dict[str, int] = {}
        """Sequence of the entry that stands, by its subject."""
        self._changes: dict[str, tuple[str, ...]] = {}
        """Requests of people that it remembers: a repeat of one does not close what has opened since."""
        self._loose: dict[str, Entry] = {}
        """What is not closed and known by its token alone, as the version before wrote it, by its subject."""

    async def settle(self, circuits: Circuits, notices: Notices) -> None:
        """Learn what stands, then write what changed. Raises BusError."""
        while page := await self._bus.read(subjects.CONTROL_STREAM, PATTERN, after=self._after):
            for stored in page:
                self._stands[stored.subject] = stored.sequence
                entry = Entry.model_validate_json(stored.body)
                self._changes[stored.subject] = entry.changes
                self._loose.pop(stored.subject, None)
                if not entry.called and entry.phase != "closed":
                    self._loose[stored.subject] = entry
                learn(circuits, entry)
                notices.stands(entry)
            self._after = page[-1].sequence
        for key, breaker in list(circuits.changed.items()):
            if await self._write(entry_of(key, breaker, circuits.evidence(key), circuits.actors(key))):
                circuits.changed.pop(key, None)

    async def _write(self, entry: Entry) -> bool:
        """Under the whole name; what stands under its token alone is over then, for two may not say how it stands."""
        subject, loose = (subjects.breaker_key(entry.scope, entry.tenant, one) for one in (entry.called, entry.name))
        if subject != loose and (old := self._loose.get(loose)) is not None:
            moved = old.model_copy(update={"phase": "closed", "reason": f"it stands as {entry.called}"})
            if not await self._put(loose, moved):
                return False
            del self._loose[loose]
        return await self._put(subject, entry.model_copy(update={"changes": self._changes.get(subject, ())}))

    async def _put(self, subject: str, entry: Entry) -> bool:
        after, body = self._stands.get(subject, 0), entry.model_dump_json().encode()
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
        self._stands[subject] = ack.sequence
        return True


def learn(circuits: Circuits, entry: Entry) -> None:
    """What an entry that stands says to the fold. One that is known by its token alone is of the first such name."""
    names = (name for scope, tenant, name in circuits.found if (scope, tenant) == (entry.scope, entry.tenant))
    known = entry.called or next((name for name in names if subjects.as_token(name) == entry.name), entry.name)
    key = (entry.scope, entry.tenant, known)
    found = circuits.found.get(key)
    if found is not None and found.since_unix_ms > entry.since_unix_ms:
        return
    if entry.by:
        circuits.reset(key, entry.by, entry.since_unix_ms)
    elif found is None or (found.phase, found.since_unix_ms) != (entry.phase, entry.since_unix_ms):
        usual, first = (found.usual, found.first) if found else (0, 0)
        since, until = entry.since_unix_ms, entry.until_unix_ms
        fresh = Breaker(entry.scope, key[2], entry.phase, since, until, entry.reason, usual=usual, first=first)
        circuits.adopt(key, replace(fresh, openings=entry.openings), entry.evidence, entry.actors)
    else:
        circuits.changed.pop(key, None)


def entry_of(key: Key, breaker: Breaker, evidence: tuple[str, ...], actors: tuple[str, ...] = ()) -> Entry:
    """As doers and people read it."""
    return Entry(
        scope=key[0],  # type: ignore[arg-type]
        tenant=key[1],
        name=subjects.as_token(key[2]),
        phase=breaker.phase,
        called=key[2][: bounds.MAX_NAME_CHARS],
        reason=breaker.reason[: bounds.MAX_REASON_CHARS],
        since_unix_ms=breaker.since_unix_ms,
        until_unix_ms=breaker.until_unix_ms,
        openings=breaker.openings,
        evidence=tuple(one[: bounds.MAX_SUMMARY_CHARS] for one in evidence[: bounds.MAX_TRIP_EVIDENCE]),
        actors=tuple(one[: bounds.MAX_SUMMARY_CHARS] for one in actors[: bounds.MAX_TRIP_AGENTS]),
    )
