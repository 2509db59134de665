"""The watcher's fold, pure: the journal goes in; trips and notices that nobody has told yet come out.

A trip is due until its fact (`Tripped`) stands in the journal: whoever takes over, or folds again after a
kill, tells what is missing and repeats nothing, for ids derive from the evidence. `make_mark` is what has to
be kept to begin later: where the reading stood, and which tasks lived; their own messages make their state
again.
"""

import json
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus import wire
from bulkhead.bus.port import StoredMessage
from bulkhead.health.breakers.chatter import ChatteringAgents, ChatterRow
from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.events import CallEnded, LineageEnded, ModelIdentified, WorkOpened
from bulkhead.health.findings import HealthFinding
from bulkhead.health.models import IdentityRow, ModelIdentities
from bulkhead.health.sources.journal import PLANNING, JournalReader
from bulkhead.health.sources.journal_messages import may_speak
from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.health.watch import Watch
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import TaskTrip, Tripped
from bulkhead_contracts.control import BreakerReset, Switched
from bulkhead_services.budget.watch import breaker_entries, deadlock_refusal
from bulkhead_services.budget.watch.notices import MAY_SWITCH, DueNotices, RecentControlChanges
from bulkhead_services.budget.watch.open_waits import WaitMinutes
from bulkhead_services.budget.watch.poison_messages import LeftOutMessages, message_identity
from bulkhead_services.budget.watch.standing import TaskStandings
from bulkhead_services.budget.watch.traffic import Traffic
from bulkhead_services.budget.watch.trends.latency import FeatureLatencyFold
from bulkhead_services.budget.watch.trends.prompt_usage import PromptUsageFold

MARK_VERSION = 5
MAX_DUE = 10_000
MAX_LIVING = 200_000
MAX_EARLY = 10_000
MAX_TOLD = 100_000
MAX_TENANTS = 1_000
QUIET_FACTOR = 20
"""A task in which nothing moves for so many times the time of a stall stands still: ten minutes, if nobody set it."""
TOLD_OF_ENDED_MS = 600_000
"""A trip of a task that has ended meanwhile is still told when it is no older."""


class TaskSpan(NamedTuple):
    """Messages that the journal had of a task: the sequence of the first, their number, the sequence of the last."""

    first: int
    messages: int
    last: int


@dataclass(frozen=True, slots=True)
class WatchMark:
    """Place where a fold may begin. living: every task that lived at `after`.

    subject, source: of the message at `after`, so that a journal that was made again is noticed. read: how far
    each inbox had been read at `after`; one of which nothing comes later has been read all the same. talks: tasks
    that were stopped for chatter, and count towards a breaker: they ended, and are not read again. models: what
    providers said of their models so far.
    """

    after: int = 0
    subject: str = ""
    source: int = 0
    living: Mapping[str, TaskSpan] = field(default_factory=dict)
    read: Mapping[str, int] = field(default_factory=dict)
    talks: Sequence[ChatterRow] = ()
    models: Sequence[IdentityRow] = ()

    def encode(self) -> bytes:
        """Bytes to keep."""
        values = [
            MARK_VERSION,
            self.after,
            self.subject,
            self.source,
            dict(self.living),
            dict(self.read),
            list(self.talks),
        ]
        return json.dumps([*values, list(self.models)]).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "WatchMark":
        """Back; a mark that cannot be read is none: the fold begins at the beginning."""
        try:
            version, after, subject, source, living, inbox_sequences, talks, models = json.loads(raw)
            numbers = (after, source, *(number for row in living.values() for number in row), *inbox_sequences.values())
            if version == MARK_VERSION and all(isinstance(number, int) for number in numbers):
                talkers, identities = ChatteringAgents(DEFAULT.breakers), ModelIdentities()
                talkers.restore_rows(talks)
                identities.restore_rows(models)
                tasks = {str(name): TaskSpan(*row) for name, row in living.items()}
                inboxes = {str(name): last for name, last in inbox_sequences.items()}
                return cls(after, str(subject), source, tasks, inboxes, talkers.dump_rows(), identities.dump_rows())
        except (ValueError, TypeError, AttributeError, IndexError):
            pass
        return cls()


class RecentTrips:
    """The last findings of each tenant, for people who ask. A watch that starts remembers what it reads again."""

    def __init__(self) -> None:
        self._found = BoundedDict[str, deque[TaskTrip]](MAX_TENANTS)

    def fold_tripped(self, stored: StoredMessage) -> None:
        """One fact; what cannot be read tells nothing, and a repeated one nothing new."""
        tenant, task = stored.tenant, stored.task
        try:
            task_trip = TaskTrip(task=task, trip=Tripped.model_validate_json(stored.body))
        except ValueError:
            return
        trips = self._found.setdefault(tenant, deque(maxlen=bounds.MAX_TRIPS_LISTED))
        if all(earlier.trip.trip != task_trip.trip.trip for earlier in trips):
            trips.append(task_trip)

    def trips_of(self, tenant: str) -> tuple[TaskTrip, ...]:
        """The newest first."""
        return tuple(sorted(self._found.get(tenant, ()), key=lambda one: -one.trip.tripped_unix_ms))


class WatchFold:
    """The fold. `due`: trips to be told, the oldest first. aside: what it leaves out; it is told what is folded."""

    def __init__(
        self,
        thresholds: Thresholds,
        left_out: LeftOutMessages | None = None,
        targets_ms: Mapping[str, int] | None = None,
    ) -> None:
        """targets_ms: see LatencyTargets."""
        self._left_out = left_out or LeftOutMessages()
        self._prompt_usage = PromptUsageFold()
        self._latency = FeatureLatencyFold(targets_ms or {})
        self.watch = Watch(thresholds)
        self.due: OrderedDict[str, HealthFinding] = OrderedDict()
        self.notices, self.recent, self.wait_minutes = DueNotices(), RecentTrips(), WaitMinutes()
        self.control_changes = RecentControlChanges()
        self.standing = TaskStandings(QUIET_FACTOR * thresholds.stalls.after_ms)
        self.traffic = Traffic()
        self.folded = 0
        self._reader = JournalReader()
        self._living: dict[str, list[int]] = {}
        """As in TaskSpan."""
        self._begun_early: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """The first message that was read of what has not begun, and how many: the journal has inboxes one before the
        other when it catches up."""
        self._told = BoundedDict[str, None](MAX_TOLD)
        self._suspected: OrderedDict[str, SuspectedDeadlock] = OrderedDict()
        self._ends_asked: set[str] = set()
        self._read: dict[str, int] = {}
        self._last: StoredMessage | None = None
        self._since = 0, ""

    def fold_message(self, stored: StoredMessage) -> None:
        """Fold one message of the journal. Known ones change nothing, also when the journal was made again."""
        self._last = stored
        receiver = stored.subject.split(".")[2]
        sequence = at_its_source(stored).sequence
        if sequence <= self._read.get(receiver, 0):
            return
        self._read[receiver] = sequence
        self._fold_unless_left_out(stored)
        self.watch.confirmations.mark_read(receiver, sequence)

    def replay_message(self, stored: StoredMessage) -> None:
        """Fold an old message of a task that lived at the mark, before the journal is read on from there.

        Other messages of its inbox, with lower sequences, are still to come: it must not make them known.
        """
        self._fold_unless_left_out(stored)

    def _fold_unless_left_out(self, stored: StoredMessage) -> None:
        if (left_out := self._left_out.trip_for(stored)) is not None:
            self._add_due(left_out)
            return
        # Not cleared when this raises: then it is the one to blame.
        self._left_out.folding = stored
        self._fold_events(stored)
        self.wait_minutes.note_waits(self.watch.graph, stored.time_unix_ms)
        self._left_out.folding = None

    def _fold_events(self, stored: StoredMessage) -> None:
        self.folded += 1
        self._count_message("/".join(stored.subject.split(".")[4:6]), stored.sequence)
        kind = _message_type(stored.headers)
        if not may_speak(stored.subject, kind):
            return  # Its receiver rejects it; most are of types that nobody here asks about.
        self.traffic.fold_message(kind, stored)
        self.standing.fold_message(kind, stored)
        self.notices.fold_message(kind, stored.subject, stored.body, stored.time_unix_ms)
        for hungry_prompt in self._prompt_usage.fold_message(kind, stored):
            self._add_due(hungry_prompt)
        if (missed := self._latency.fold_message(kind, stored)) is not None:
            self._add_due(missed)
        if kind == Tripped.TYPE:
            self.recent.fold_tripped(stored)
            self._apply_tripped(stored.body)
            return
        if kind == WaitRefused.TYPE:
            self._apply_wait_refused(stored)
        if kind in (Switched.TYPE, BreakerReset.TYPE) and stored.subject.split(".")[1] in MAY_SWITCH:
            self.control_changes.fold_fact(kind, stored)
        if kind == BreakerReset.TYPE and stored.subject.split(".")[1] in MAY_SWITCH:
            self._apply_breaker_reset(stored.body)
        for event in self._reader.read(stored.subject, stored.headers, stored.body, stored.time_unix_ms):
            if isinstance(event, WorkOpened) and event.key == PLANNING and len(self._living) < MAX_LIVING:
                if not self.watch.has_ended(event.lineage):
                    first, count = self._begun_early.pop(event.lineage, (stored.sequence, 1))
                    self._living.setdefault(event.lineage, [first, count, stored.sequence])
            elif isinstance(event, LineageEnded):
                self._living.pop(event.lineage, None)
            if isinstance(event, CallEnded | ModelIdentified):
                event = self._with_author_time(event, stored)
            for finding in self.watch.fold_event(event):
                if isinstance(finding, SuspectedDeadlock):
                    self._add_suspicion(finding)
                else:
                    self._add_due(finding)

    def _with_author_time(
        self, event: CallEnded | ModelIdentified, stored: StoredMessage
    ) -> CallEnded | ModelIdentified:
        """In a journal that was made again every call that ever failed failed just now: one that ended before breakers
        count has the time that its author tells."""
        since = self.watch.breakers.from_unix_ms
        if since != self._since[0]:
            self._since = since, wire.format_rfc3339(since)
        # Texts are compared first: this is asked of every call.
        if event.time_unix_ms < since or not "" < stored.headers.get("ce-time", "") < self._since[1]:
            return event
        try:
            return replace(event, time_unix_ms=min(event.time_unix_ms, envelope.parse(stored.headers).time_unix_ms))
        except envelope.EnvelopeError:
            return event

    def _count_message(self, lineage: str, sequence: int) -> None:
        span = self._living.get(lineage)
        if span is not None:
            span[1:] = span[1] + 1, sequence
            return
        first, count = self._begun_early.get(lineage, (sequence, 0))
        self._begun_early[lineage] = first, count + 1
        if len(self._begun_early) > MAX_EARLY:
            self._begun_early.popitem(last=False)

    # Deadlocks: DESIGN 6. Every replica confirms, so that a standby goes on where the other one was killed.

    @property
    def needs_inbox_ends(self) -> bool:
        """True while there is a suspicion of which it is not known yet how far the inboxes had come."""
        return any(name not in self._ends_asked for name in self._suspected)

    def set_inbox_ends(self, inbox_ends: Mapping[str, int]) -> None:
        """`inbox_ends`: how far every inbox has come, asked after the suspicions were raised."""
        for name, suspected in self._suspected.items():
            if name not in self._ends_asked:
                self._ends_asked.add(name)
                self.watch.confirmations.add_suspicion(suspected, inbox_ends)

    def judge_suspicions(self, now_unix_ms: int) -> None:
        """Judge the suspicions whose inboxes were read so far: what still stands is a deadlock, and due."""
        for outcome, trip in self.watch.judge_suspicions(now_unix_ms):
            self._drop_suspicion(outcome.suspected.trip)
            if trip is not None:
                self._add_due(deadlock_refusal.describe_trip(trip))

    def _add_suspicion(self, suspected: SuspectedDeadlock) -> None:
        self._drop_suspicion(suspected.trip)
        self._suspected[suspected.trip] = suspected
        while len(self._suspected) > MAX_DUE:
            self._drop_suspicion(next(iter(self._suspected)))

    def _drop_suspicion(self, name: str) -> None:
        self._suspected.pop(name, None)
        self._ends_asked.discard(name)

    def _apply_wait_refused(self, stored: StoredMessage) -> None:
        """Another replica has confirmed it, and chosen by what it knew then; its fact may be lacking still."""
        suspected = self._suspected.get(_trip_of(stored.body))
        if suspected is not None:
            refused = deadlock_refusal.with_refused_victim(suspected, stored.subject, stored.body)
            self._add_due(deadlock_refusal.describe_trip(self.watch.deadlock_finding(refused)))

    def _apply_breaker_reset(self, body: bytes) -> None:
        """In its place in the stream, so that every replica knows of it there; who leads reads the entry besides."""
        try:
            entry = BreakerReset.model_validate_json(body).breaker
        except ValueError:
            return
        if entry.by:
            breaker_entries.learn_entry(self.watch.breakers, entry)

    def restore_living(self, living: Mapping[str, TaskSpan], read: Mapping[str, int] | None = None) -> None:
        """These lived at the mark; so far the inboxes had been read, and will have been when anything is judged."""
        self._living.update((name, list(span)) for name, span in living.items())
        for inbox, sequence in (read or {}).items():
            self.watch.confirmations.mark_read(inbox, sequence)

    def pass_time(self, now_unix_ms: int) -> None:
        """Everything that was said until then has been folded."""
        for trip in self.watch.pass_time(now_unix_ms):
            self._add_due(trip)

    def due_findings(self, now_unix_ms: int) -> list[HealthFinding]:
        """Findings to be told now. One that is no longer of use is dropped: its task ended long ago."""
        for name, trip in list(self.due.items()):
            if self.watch.has_ended(trip.lineage) and trip.time_unix_ms + TOLD_OF_ENDED_MS < now_unix_ms:
                del self.due[name]
        return list(self.due.values())

    def mark_told(self, trip: str) -> None:
        """Its fact stands in the journal."""
        self.due.pop(trip, None)
        self._told[trip] = None

    def make_mark(self) -> WatchMark:
        """From here on a later fold may begin. What is due is found again: it is of tasks that live, or of no use."""
        if self._last is None:
            return WatchMark()
        subject, source = message_identity(self._last)
        living = {name: TaskSpan(*numbers) for name, numbers in self._living.items()}
        talks, models = self.watch.breakers.talkers.dump_rows(), self.watch.models.dump_rows()
        return WatchMark(self._last.sequence, subject, source, living, dict(self._read), talks, models)

    def _add_due(self, trip: HealthFinding) -> None:
        if trip.id not in self._told and len(self.due) < MAX_DUE:
            self.due.setdefault(trip.id, trip)

    def _apply_tripped(self, body: bytes) -> None:
        if name := _trip_of(body):
            self._drop_suspicion(name)
            self.mark_told(name)


def _trip_of(body: bytes) -> str:
    """The trip that a fact names; "" for none."""
    try:
        name = json.loads(body).get("trip")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return name if isinstance(name, str) else ""


def _message_type(headers: Mapping[str, str]) -> str:
    """The type of a message, without its version."""
    ce_type = headers.get("ce-type")
    if ce_type is None:
        ce_type = next((value for key, value in headers.items() if key.lower() == "ce-type"), "")
    return ce_type.rpartition(".v")[0]
