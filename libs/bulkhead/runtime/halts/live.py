"""The live view of halts and breakers in a doer: read at start, followed live, re-read now and then.

In: entries of KV_CONTROL. Out: the halt that applies to a job, an event that cuts its streams, and the open breaker
that holds its call back.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError
from bulkhead.telemetry import names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, Halt

log = Log("halts")

CEILING_CODE = "budget_exceeded"
"""Code of budget's halts."""
REREAD_S = 2.0
"""What was not heard live is read so often."""
MAX_HALTS = 100_000
TRIAL_GAP_MS = 1_000
"""While a breaker is half-open, each replica lets one call through in so long: the trials that close it or open it."""
BREAKERS = "breaker"
SEQUENCE = "Nats-Sequence"
"""Header of what is repeated live: where it is stored."""

Key = tuple[str, str, str]
"""scope, tenant ("" for everybody's), name as well as it is known: see Halt.called."""
NamedKey = tuple[Key, str]
"""Where an entry that would hold something is found, and the name that it must be of."""


class HaltTarget(NamedTuple):
    """Everything of a job that a halt can name. agents: from wide to narrow."""

    tenant: str
    task: str
    agents: tuple[str, ...] = ()
    feature: str = ""
    tool: str = ""
    model: str = ""

    def entry_keys(self) -> list[NamedKey]:
        """The entries that would halt the job, those that end it first. For a name that is no token they include
        entries under its token alone."""
        keys = [(("task", self.tenant, self.task), self.task), (("tenant", "", self.tenant), self.tenant)]
        agents = (("agent", name) for name in self.agents)
        named = (*agents, ("feature", self.feature), ("tool", self.tool), ("model", self.model))
        for scope, name in named:
            if name:
                spellings = dict.fromkeys((name, subjects.as_token(name)))
                keys += [((scope, tenant, spelling), name) for spelling in spellings for tenant in (self.tenant, "")]
        return keys


class OpenBreaker(NamedTuple):
    """An open breaker, and for how long no call goes out."""

    breaker: Breaker
    retry_after_ms: int

    @property
    def key(self) -> Key:
        """Key that those wait for whom it holds back; other than that of a halt of the same name."""
        return _breaker_key(self.breaker)

    @property
    def retry_after_s(self) -> int:
        """The time as people are told it."""
        return max(1, round(self.retry_after_ms / 1000))


def is_breaker_key(key: Key) -> bool:
    """Check whether it is a breaker that is waited for, and not a halt."""
    return key[0].startswith(f"{BREAKERS}.")


def key_of(entry: Halt | Breaker) -> Key:
    """By which an entry is remembered."""
    return entry.scope, entry.tenant, entry.known_as


def _breaker_key(breaker: Breaker) -> Key:
    return f"{BREAKERS}.{breaker.scope}", breaker.tenant, breaker.known_as


def _applies_to(entry: Halt | Breaker, name: str) -> bool:
    """Check whether an entry that was found for this name is of it."""
    return entry.called in ("", name)


class Halts:
    """The live view of all halts and breakers."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._switches: dict[Key, Halt] = {}
        """Switches of tenants, agents, tools, models and features: few, set by people, never forgotten."""
        self._tasks = BoundedDict[Key, Halt](MAX_HALTS)
        self._breakers: dict[Key, Breaker] = {}
        self._trials: dict[Key, int] = {}
        # Only as long as a caller waits for one.
        self._events: WeakValueDictionary[tuple[HaltTarget, bool], asyncio.Event] = WeakValueDictionary()
        self._newest = BoundedDict[str, int](MAX_HALTS)
        """Sequence of the entry that is known, by its place."""
        self._after = 0
        self.on_lift: Callable[[Key], None] | None = None
        """Called with what is not halted (any more), and with breakers that are closed."""

    def is_over(self, key: Key, since_unix_ms: int) -> bool:
        """Check whether what has held calls back since then is lifted, or closed."""
        if is_breaker_key(key):
            breaker = self._breakers.get((key[0].partition(".")[2], *key[1:]))
            return breaker is not None and breaker.phase == "closed" and breaker.since_unix_ms >= since_unix_ms
        halt = self._tasks.get(key) or self._switches.get(key)
        return halt is not None and not halt.active and halt.at_unix_ms >= since_unix_ms

    def count_standing(self) -> Counts:
        """Number of halts that pause, by scope."""
        by_scope = Counter(
            halt.scope
            for halt in (*list(self._switches.values()), *list(self._tasks.values()))
            if halt.active and halt.pauses
        )
        return {((names.SCOPE, scope),): count for scope, count in by_scope.items()}

    def count_open_breakers(self) -> Counts:
        """Number of breakers that are not closed, by scope and phase."""
        by_phase = Counter(
            (breaker.scope, breaker.phase) for breaker in list(self._breakers.values()) if breaker.phase != "closed"
        )
        return {((names.SCOPE, scope), (names.STATE, phase)): count for (scope, phase), count in by_phase.items()}

    async def run(self) -> None:
        """Follow the control entries until cancelled."""
        await asyncio.gather(self._follow_entries(), self._reread_entries())

    async def load(self) -> None:
        """Read what stands now. Raises BusError."""
        while page := await self._bus.read(subjects.CONTROL_STREAM, "$KV.CONTROL.>", after=self._after):
            for stored in page:
                self._fold_entry(stored.subject, stored.body, stored.sequence)
            self._after = page[-1].sequence

    def find(self, target: HaltTarget) -> Halt | None:
        """The halt that applies: one that ends the job before one that only pauses it."""
        pausing = None
        for key, name in target.entry_keys():
            halt = self._tasks.get(key) or self._switches.get(key)
            if halt is not None and halt.active and _applies_to(halt, name):
                if not halt.pauses:
                    return halt
                pausing = pausing or halt
        return pausing

    def holding_breaker(self, target: HaltTarget, now_unix_ms: int) -> OpenBreaker | None:
        """The breaker that holds a call back now. A call that is let through as a trial counts as one."""
        open_ones = [
            (key, candidate)
            for key, name in target.entry_keys()
            if (candidate := self._breakers.get(key)) is not None
            and candidate.phase != "closed"
            and _applies_to(candidate, name)
            # Nobody who knows the whole name tries it, and closes what stands under its token.
            and (candidate.known_as == name or now_unix_ms < candidate.until_unix_ms)
        ]
        for key, breaker in open_ones:
            due = max(breaker.until_unix_ms, self._trials.get(key, 0) + TRIAL_GAP_MS)
            if now_unix_ms < due:
                return OpenBreaker(breaker, due - now_unix_ms)
        self._trials.update((key, now_unix_ms) for key, _ in open_ones)
        return None

    def halt_event(self, target: HaltTarget, ends: bool = False) -> asyncio.Event:
        """Set while the target is halted. ends: by what ends it, and does not only pause it."""
        event = self._events.get((target, ends))
        if event is None:
            event = self._events[target, ends] = asyncio.Event()
        if self._is_halted(target, ends):
            event.set()
        return event

    def _is_halted(self, target: HaltTarget, ends: bool) -> bool:
        halt = self.find(target)
        return halt is not None and not (ends and halt.pauses)

    def _fold_entry(self, subject: str, body: bytes, sequence: int = 0) -> None:
        """sequence: of the entry; a follower that lags shows the one before what was heard live."""
        place = subject.split(".", 2)[2]
        if sequence < self._newest.get(place, 0):
            return
        self._newest[place] = sequence
        try:
            # By its place: a tenant, or a feature, may be called that, too.
            if subject.split(".", 3)[2] == BREAKERS:
                breaker = Breaker.model_validate_json(body)
                self._breakers[key_of(breaker)] = breaker
                if breaker.phase == "closed" and self.on_lift is not None:
                    self.on_lift(_breaker_key(breaker))
                return
            halt = Halt.model_validate_json(body)
        except ValidationError:
            return
        entry_key = key_of(halt)
        if halt.scope == "task":
            self._tasks[entry_key] = halt
        else:
            self._switches[entry_key] = halt
        for (target, ends), event in list(self._events.items()):
            if any(entry_key == key for key, _ in target.entry_keys()):
                event.set() if self._is_halted(target, ends) else event.clear()
        if not halt.active and self.on_lift is not None:
            self.on_lift(entry_key)

    async def _follow_entries(self) -> None:
        subscription = await self._bus.subscribe_live("control.live.>")
        async for entry in subscription:
            self._fold_entry(entry.subject, entry.body, int(entry.headers.get(SEQUENCE, 0)))

    async def _reread_entries(self) -> None:
        while True:
            try:
                await self.load()
            except BusError as error:
                log.warning("halts_unread", reason=str(error))
            await asyncio.sleep(REREAD_S)
