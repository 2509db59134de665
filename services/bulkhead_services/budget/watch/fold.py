"""The watcher's fold, pure: the journal goes in; trips and notices that nobody has told yet come out.

A trip is due until its fact (`Tripped`) stands in the journal: whoever takes over, or folds again after a kill, tells
what is missing and repeats nothing, for ids derive from the evidence. `mark` is what has to be kept to begin later:
where the reading stood, and which tasks lived; their own messages make their state again.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus import wire
from bulkhead.bus.port import Stored
from bulkhead.health.breakers.chatter import Row, Talkers
from bulkhead.health.deadlock.evidence import Suspected
from bulkhead.health.events import Ended, Identified, Opened, Served
from bulkhead.health.findings import Finding
from bulkhead.health.models import Models
from bulkhead.health.models import Row as ModelRow
from bulkhead.health.sources.journal import PLANNING, Journal
from bulkhead.health.sources.journal_messages import speaks
from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.health.watch import Watch
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import envelope
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.control import BreakerReset
from bulkhead_services.budget.watch import breaker_entries, deadlock_refusal
from bulkhead_services.budget.watch.latency import LatencyTargets
from bulkhead_services.budget.watch.notices import MAY_SWITCH, Notices
from bulkhead_services.budget.watch.poison_messages import Aside, identity
from bulkhead_services.budget.watch.recent_trips import RecentTrips
from bulkhead_services.budget.watch.standing import Standing
from bulkhead_services.budget.watch.traffic import Traffic

MAX_DUE = 10_000
MAX_LIVING = 200_000
MAX_EARLY = 10_000
MAX_TOLD = 100_000
QUIET = 20
"""A task in which nothing moves for so many times the time of a stall stands still: ten minutes, if nobody set it."""
TOLD_OF_ENDED_MS = 600_000
"""A trip of a task that has ended meanwhile is still told when it is no older."""


class Lived(NamedTuple):
    """What the journal had of a task: the sequence of its first message and of its last, and how many there were.

    A mark of an earlier version has only the first; the others are 0.
    """

    first: int
    messages: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a fold may begin. living: every task that lived at `after`.

    subject, source: of the message at `after`, so that a journal that was made again is noticed. read: how far each
    inbox had been read at `after`; one of which nothing comes later has been read all the same. talks: tasks that were
    stopped for chatter, and count towards a breaker: they ended, and are not read again. models: what providers said of
    their models so far.
    """

    after: int = 0
    subject: str = ""
    source: int = 0
    living: Mapping[str, Lived] = field(default_factory=dict)
    read: Mapping[str, int] = field(default_factory=dict)
    talks: Sequence[Row] = ()
    models: Sequence[ModelRow] = ()

    def encode(self) -> bytes:
        """As it is kept."""
        kept = [5, self.after, self.subject, self.source, dict(self.living), dict(self.read), list(self.talks)]
        return json.dumps([*kept, list(self.models)]).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "Mark":
        """Back; a mark that cannot be read is none: the fold begins at the beginning."""
        try:
            version, after, subject, source, living, read, *more = json.loads(raw)
            if version == 2:
                living = {name: [first] for name, first in living.items()}
            numbers = (after, source, *(one for row in living.values() for one in row), *read.values())
            if version in (2, 3, 4, 5) and all(isinstance(one, int) for one in numbers):
                known = Talkers(DEFAULT.breakers)
                known.recall(more[0] if version >= 4 else ())
                seen = Models()
                seen.recall(more[1] if version == 5 else ())
                tasks = {str(name): Lived(*row) for name, row in living.items()}
                inboxes = {str(name): last for name, last in read.items()}
                return cls(after, str(subject), source, tasks, inboxes, known.rows(), seen.rows())
        except (ValueError, TypeError, AttributeError, IndexError):
            pass
        return cls()


class Watching:
    """The fold. `due`: trips to be told, the oldest first. aside: what it leaves out; it is told what is folded."""

    def __init__(
        self, thresholds: Thresholds, aside: Aside | None = None, targets_ms: Mapping[str, int] | None = None
    ) -> None:
        """targets_ms: see LatencyTargets."""
        self._aside = aside or Aside()
        self._latency = LatencyTargets(targets_ms or {})
        self.watch = Watch(thresholds)
        self.due: OrderedDict[str, Finding] = OrderedDict()
        self.notices, self.recent = Notices(), RecentTrips()
        self.standing = Standing(QUIET * thresholds.stalls.after_ms)
        self.traffic = Traffic()
        self.folded = 0
        self._reader = Journal()
        self._living: dict[str, list[int]] = {}
        """As in Lived."""
        self._early: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """The first message that was read of what has not begun, and how many: the journal has inboxes one before the
        other when it catches up."""
        self._told = BoundedDict[str, None](MAX_TOLD)
        self._suspected: OrderedDict[str, Suspected] = OrderedDict()
        self._asked: set[str] = set()
        self._read: dict[str, int] = {}
        self._last: Stored | None = None
        self._since = 0, ""

    def take(self, stored: Stored) -> None:
        """Fold one message of the journal. Known ones change nothing, also when the journal was made again."""
        self._last = stored
        receiver = stored.subject.split(".")[2]
        sequence = at_its_source(stored).sequence
        if sequence <= self._read.get(receiver, 0):
            return
        self._read[receiver] = sequence
        self._fold(stored)
        self.watch.confirmations.read(receiver, sequence)

    def replay(self, stored: Stored) -> None:
        """Fold an old message of a task that lived at the mark, before the journal is read on from there.

        Other messages of its inbox, with lower sequences, are still to come: it must not make them known.
        """
        self._fold(stored)

    def _fold(self, stored: Stored) -> None:
        if (left_out := self._aside.trip(stored)) is not None:
            self._trips(left_out)
            return
        # Not cleared when this raises: then it is the one to blame.
        self._aside.folding = stored
        self._take(stored)
        self._aside.folding = None

    def _take(self, stored: Stored) -> None:
        self.folded += 1
        self._count("/".join(stored.subject.rsplit(".", 2)[1:]), stored.sequence)
        kind = _kind(stored.headers)
        if not speaks(stored.subject, kind):
            return  # Its receiver rejects it; most are of types that nobody here asks about.
        self.traffic.take(kind, stored)
        self.standing.take(kind, stored)
        self.notices.take(kind, stored.subject, stored.body, stored.time_unix_ms)
        if (missed := self._latency.take(kind, stored)) is not None:
            self._trips(missed)
        if kind == Tripped.TYPE:
            self.recent.take(stored)
            self._is_told(stored.body)
            return
        if kind == WaitRefused.TYPE:
            self._is_refused(stored)
        if kind == BreakerReset.TYPE and stored.subject.split(".")[1] in MAY_SWITCH:
            self._is_reset(stored.body)
        for event in self._reader.read(stored.subject, stored.headers, stored.body, stored.time_unix_ms):
            if isinstance(event, Opened) and event.key == PLANNING and len(self._living) < MAX_LIVING:
                if not self.watch.ended(event.lineage):
                    first, count = self._early.pop(event.lineage, (stored.sequence, 1))
                    self._living.setdefault(event.lineage, [first, count, stored.sequence])
            elif isinstance(event, Ended):
                self._living.pop(event.lineage, None)
            if isinstance(event, Served | Identified):
                event = self._as_it_ended(event, stored)
            for found in self.watch.take(event):
                if isinstance(found, Suspected):
                    self._suspects(found)
                else:
                    self._trips(found)

    def _as_it_ended(self, event: Served | Identified, stored: Stored) -> Served | Identified:
        """In a journal that was made again every call that ever failed failed just now: one that ended before breakers
        count has the time that its author tells."""
        since = self.watch.circuits.from_unix_ms
        if since != self._since[0]:
            self._since = since, wire.rfc3339(since)
        # Texts are compared first: this is asked of every call.
        if event.time_unix_ms < since or not "" < stored.headers.get("ce-time", "") < self._since[1]:
            return event
        try:
            return replace(event, time_unix_ms=min(event.time_unix_ms, envelope.parse(stored.headers).time_unix_ms))
        except envelope.EnvelopeError:
            return event

    def _count(self, lineage: str, sequence: int) -> None:
        lived = self._living.get(lineage)
        if lived is not None:
            lived[1:] = lived[1] + 1, sequence
            return
        first, count = self._early.get(lineage, (sequence, 0))
        self._early[lineage] = first, count + 1
        if len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)

    # Deadlocks: DESIGN 6. Every replica confirms, so that a standby goes on where the other one was killed.

    @property
    def unasked(self) -> bool:
        """Whether there is a suspicion of which it is not known yet how far the inboxes had come."""
        return any(one not in self._asked for one in self._suspected)

    def expect(self, last: Mapping[str, int]) -> None:
        """`last`: how far every inbox has come, asked after the suspicions were raised."""
        for name, suspected in self._suspected.items():
            if name not in self._asked:
                self._asked.add(name)
                self.watch.confirmations.expect(suspected, last)

    def settle(self, now_unix_ms: int) -> None:
        """Judge the suspicions whose inboxes were read so far: what still stands is a deadlock, and due."""
        for outcome, trip in self.watch.confirmed(now_unix_ms):
            self._judged(outcome.suspected.trip)
            if trip is not None:
                self._trips(deadlock_refusal.told(trip))

    def _suspects(self, suspected: Suspected) -> None:
        self._judged(suspected.trip)
        self._suspected[suspected.trip] = suspected
        while len(self._suspected) > MAX_DUE:
            self._judged(next(iter(self._suspected)))

    def _judged(self, name: str) -> None:
        self._suspected.pop(name, None)
        self._asked.discard(name)

    def _is_refused(self, stored: Stored) -> None:
        """Another replica has confirmed it, and chosen by what it knew then; its fact may be lacking still."""
        suspected = self._suspected.get(_trip_of(stored.body))
        if suspected is not None:
            refused = deadlock_refusal.as_refused(suspected, stored.subject, stored.body)
            self._trips(deadlock_refusal.told(self.watch.deadlock(refused)))

    def _is_reset(self, body: bytes) -> None:
        """In its place in the stream, so that every replica knows of it there; who leads reads the entry besides."""
        try:
            entry = BreakerReset.model_validate_json(body).breaker
        except ValueError:
            return
        if entry.by:
            breaker_entries.learn(self.watch.circuits, entry)

    def lives(self, living: Mapping[str, Lived], read: Mapping[str, int] | None = None) -> None:
        """These lived at the mark; so far the inboxes had been read, and will have been when anything is judged."""
        self._living.update((name, list(one)) for name, one in living.items())
        for inbox, sequence in (read or {}).items():
            self.watch.confirmations.read(inbox, sequence)

    def pass_time(self, now_unix_ms: int) -> None:
        """Everything that was said until then has been folded."""
        for trip in self.watch.pass_time(now_unix_ms):
            self._trips(trip)

    def tell(self, now_unix_ms: int) -> list[Finding]:
        """What is to be told now. What is no longer of use is dropped: its task ended long ago."""
        for name, trip in list(self.due.items()):
            if self.watch.ended(trip.lineage) and trip.time_unix_ms + TOLD_OF_ENDED_MS < now_unix_ms:
                del self.due[name]
        return list(self.due.values())

    def told(self, trip: str) -> None:
        """Its fact stands in the journal."""
        self.due.pop(trip, None)
        self._told[trip] = None

    def mark(self) -> Mark:
        """From here on a later fold may begin. What is due is found again: it is of tasks that live, or of no use."""
        if self._last is None:
            return Mark()
        subject, source = identity(self._last)
        living = {name: Lived(*one) for name, one in self._living.items()}
        talks, seen = self.watch.circuits.talkers.rows(), self.watch.models.rows()
        return Mark(self._last.sequence, subject, source, living, dict(self._read), talks, seen)

    def _trips(self, trip: Finding) -> None:
        if trip.id not in self._told and len(self.due) < MAX_DUE:
            self.due.setdefault(trip.id, trip)

    def _is_told(self, body: bytes) -> None:
        if name := _trip_of(body):
            self._judged(name)
            self.told(name)


def _trip_of(body: bytes) -> str:
    """The trip that a fact names; "" for none."""
    try:
        name = json.loads(body).get("trip")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return name if isinstance(name, str) else ""


def _kind(headers: Mapping[str, str]) -> str:
    """The type of a message, without its version."""
    found = headers.get("ce-type")
    if found is None:
        found = next((value for key, value in headers.items() if key.lower() == "ce-type"), "")
    return found.rpartition(".v")[0]
