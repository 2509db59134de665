"""Notices for a tenant's webhook beside the alerts of its accounts: halts, changes of breakers and of models; the last
acts of its people, for those who ask. Pure.

In: messages of the journal; breakers as they stand. Out: notices that nobody has asked to be posted yet. A notice is
due until the journal has the message that asks for it, and its id derives from the fact: a replica that takes over, or
folds again after a kill, loses none and makes no second event of one. An event of all tenants is told to none of them.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead.health import models
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead.runtime.halts.operator import EVERYBODY, HALTS
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import ControlChange, NoticeRequested, Overran, TaskHalted, Tripped
from bulkhead_contracts.control import Breaker, BreakerReset, Halt, Switched

MAX_DUE = 10_000
MAX_TOLD = 100_000
LATE_MS = 600_000
"""Age from which an event is no news any more: it stands in the journal."""
BREAKER, STALL, LATENCY, PROMPT_USAGE = "breaker", "stall", "latency", "prompt_usage"
MAY_SWITCH = frozenset({"budget", "operator"})
"""Services that state that somebody halted something, or closed a breaker."""
OWN, MAX_TENANTS = "budget", 1_000
"""Who halts what a detector or a ceiling stopped: no person. Tenants whose last acts are remembered."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event for a tenant. kind: halted, resumed, breaker_opened, breaker_reset, breaker_closed, stalled,
    latency_missed, prompt_uses_more, model_changed or overran.

    about: what of the tenant's: `task:acme:t1`, `tool:acme:http_get`, `tenant:acme`. task: the one it is told under.
    """

    id: str
    kind: str
    tenant: str
    task: str
    about: str
    what: str
    hint: str
    at_unix_ms: int

    def to_request(self) -> NoticeRequested:
        """Body that asks to post it: of no account, so without figures."""
        description, hint = (text[: bounds.MAX_REASON_CHARS] for text in (self.what, self.hint))
        fields: dict[str, Any] = {"notice": self.id, "kind": self.kind, "account": self.about[:200]}
        fields |= {"unit": "", "percent": 0, "spent": 0, "limit": 0}
        return NoticeRequested(**fields, what=description, hint=hint, told_unix_ms=self.at_unix_ms)


class DueNotices:
    """Due ones, oldest first."""

    def __init__(self) -> None:
        self._due: OrderedDict[str, Notice] = OrderedDict()
        self._told = BoundedDict[str, None](MAX_TOLD)

    def fold_message(self, kind: str, subject: str, body: bytes, at_unix_ms: int) -> None:
        """Fold one message of this type; most are of no concern. What cannot be read is told to nobody."""
        parse_notice = _READERS.get(kind)
        if parse_notice is None:
            return
        try:
            _, sender, receiver, _, tenant, task, _ = subject.split(".")
            if kind == NoticeRequested.TYPE and receiver != "tool_executor":
                return  # Told to the gateway, before; not yet to who posts it.
            parsed = parse_notice(sender, tenant, task, body, at_unix_ms)
        except ValueError:
            return
        if isinstance(parsed, str):
            self.mark_told(parsed)
        elif parsed is not None:
            self._add_due(parsed)

    def apply_breaker_entry(self, entry: Breaker) -> None:
        """A breaker that trials have closed is told by no fact, but by its control entry."""
        owner = entry.name if entry.scope == "tenant" else entry.tenant
        if entry.phase == "closed" and not entry.by and owner:
            description = f"the breaker of {entry.scope} {entry.known_as} is closed again: {entry.reason}"
            self._add_due(_notice_of_breaker("closed", entry, owner, description, entry.since_unix_ms))

    def _add_due(self, notice: Notice) -> None:
        if notice.id not in self._told and len(self._due) < MAX_DUE:
            self._due.setdefault(notice.id, notice)

    def mark_told(self, name: str) -> None:
        """Somebody has asked for it to be posted."""
        self._due.pop(name, None)
        self._told[name] = None

    def due_notices(self, now_unix_ms: int) -> list[Notice]:
        """Notices to be asked for now; late ones are dropped."""
        for name in [name for name, notice in self._due.items() if notice.at_unix_ms + LATE_MS < now_unix_ms]:
            del self._due[name]
        return list(self._due.values())


Reader = Callable[[str, str, str, bytes, int], Notice | str | None]
"""Sender, tenant, task, body, time -> a notice; the id of one that is asked for already; None."""


def _notice_of_switched(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> Notice | None:
    halt = Switched.model_validate_json(body).halt
    owner = halt.name if halt.scope == "tenant" else halt.tenant
    if sender not in MAY_SWITCH or not owner:
        return None
    halted_party = f"{halt.scope} {halt.known_as}"
    if not halt.active:
        description, hint = f"{halted_party} goes on, by {halt.by}: {halt.reason}", ""
    elif halt.code == CEILING_CODE:
        description, hint = halt.reason, f"`bulkhead topup {halt.name} --usd X`, or raise the limit that it names"
    else:
        tenant_option = "" if halt.scope in ("task", "tenant") else f" --tenant {owner}"
        description = f"{halted_party} was halted by {halt.by}: {halt.reason}"
        hint = f"`bulkhead resume --{halt.scope} {halt.known_as}{tenant_option}` lets it go on"
    name = _notice_id("switched", halt.scope, owner, halt.known_as, halt.at_unix_ms, halt.active)
    kind, notice_task = "halted" if halt.active else "resumed", halt.name if halt.scope == "task" else HALTS
    return Notice(
        name,
        kind,
        owner,
        notice_task,
        _account_of(halt.scope, owner, halt.known_as),
        description,
        hint,
        halt.at_unix_ms or at_unix_ms,
    )


def _notice_of_task_halted(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> Notice | None:
    """Once per task and code: every call that is refused says it again."""
    halted = TaskHalted.model_validate_json(body)
    if sender != "budget":
        return None
    name, about = _notice_id("halted", tenant, task, halted.code), _account_of("task", tenant, task)
    description = f"task {task} was ended ({halted.code}): {halted.reason}"
    return Notice(name, "halted", tenant, task, about, description, f"`bulkhead why {task}`", at_unix_ms)


def _notice_of_reset(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> Notice | None:
    reset = BreakerReset.model_validate_json(body)
    breaker = reset.breaker
    owner = breaker.name if breaker.scope == "tenant" else breaker.tenant
    if sender not in MAY_SWITCH or not owner:
        return None
    cause = f": {reset.reason}" if reset.reason else ""
    description = (
        f"the breaker of {breaker.scope} {breaker.known_as} was closed by {breaker.by}{cause}. It had "
        f"opened because {reset.was}"
    )
    return _notice_of_breaker("reset", breaker, owner, description, breaker.since_unix_ms or at_unix_ms)


def _notice_of_tripped(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> Notice | None:
    """Trips of breakers, stalls, latency, prompts, models: a stopped task is told as halted; a deadlock is broken
    without anybody.
    """
    trip = Tripped.model_validate_json(body)
    family, _, scope = trip.detector.partition(".")
    if sender != "budget" or family not in (BREAKER, STALL, LATENCY, PROMPT_USAGE, models.FAMILY):
        return None
    if family == LATENCY:
        feature = trip.agents[0] if trip.agents else ""
        kind, about, description = "latency_missed", _account_of("feature", tenant, feature), trip.what
    elif family == PROMPT_USAGE:
        prompt = trip.agents[0] if trip.agents else ""
        kind, about, description = "prompt_uses_more", _account_of("prompt", tenant, prompt), trip.what
    elif family == STALL:
        kind, about, description = "stalled", _account_of("task", tenant, task), f"task {task}: {trip.what}"
    elif family == models.FAMILY:
        kind, about, description = (
            "model_changed",
            _account_of("model", tenant, trip.agents[0] if trip.agents else ""),
            trip.what,
        )
    else:
        kind, about, description = (
            "breaker_opened",
            _account_of(scope, tenant, trip.agents[0] if trip.agents else ""),
            trip.what,
        )
    return Notice(trip.trip, kind, tenant, task, about, description, trip.hint, trip.tripped_unix_ms)


def _notice_of_overran(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> Notice | None:
    """Once per task and resource: the next call may overrun as well."""
    overrun = Overran.model_validate_json(body)
    if sender != "budget":
        return None
    name, about = _notice_id("overran", tenant, task, overrun.resource), _account_of("task", tenant, task)
    description = f"a call of {overrun.resource} in task {task} was charged in full: {overrun.what}"
    return Notice(name, "overran", tenant, task, about, description, f"`bulkhead why {task}`", overrun.overran_unix_ms)


def _requested_notice_id(sender: str, tenant: str, task: str, body: bytes, at_unix_ms: int) -> str | None:
    return NoticeRequested.model_validate_json(body).notice if sender == "budget" else None


def _notice_of_breaker(change: str, entry: Breaker, owner: str, description: str, at_unix_ms: int) -> Notice:
    name = _notice_id(change, entry.scope, owner, entry.known_as, entry.since_unix_ms)
    about = _account_of(entry.scope, owner, entry.known_as)
    return Notice(name, f"breaker_{change}", owner, HALTS, about, description, "", at_unix_ms)


_READERS: dict[str, Reader] = {
    Switched.TYPE: _notice_of_switched,
    TaskHalted.TYPE: _notice_of_task_halted,
    BreakerReset.TYPE: _notice_of_reset,
    Tripped.TYPE: _notice_of_tripped,
    Overran.TYPE: _notice_of_overran,
    NoticeRequested.TYPE: _requested_notice_id,
}


def _account_of(scope: str, tenant: str, name: str) -> str:
    return f"tenant:{tenant}" if scope == "tenant" else f"{scope}:{tenant}:{name}"


def _notice_id(*parts: object) -> str:
    return hashlib.sha256("|".join(str(part) for part in parts).encode()).hexdigest()[:32]


class RecentControlChanges:
    """The last halts, lifts and resets by people, by tenant; those of what all tenants share are everybody's. A watch
    that starts remembers what it reads again."""

    def __init__(self) -> None:
        self._changes = BoundedDict[str, deque[ControlChange]](MAX_TENANTS)

    def fold_fact(self, kind: str, stored: StoredMessage) -> None:
        """One fact; what cannot be read tells nothing, and a repeated one nothing new. kind: its type."""
        try:
            if kind == Switched.TYPE:
                change = _change_of_halt(Switched.model_validate_json(stored.body).halt, stored.time_unix_ms)
            else:
                change = _change_of_reset(BreakerReset.model_validate_json(stored.body), stored.time_unix_ms)
        except ValueError:
            return
        if change.by == OWN:
            return
        changes = self._changes.setdefault(stored.tenant, deque(maxlen=bounds.MAX_CONTROL_CHANGES))
        if change not in changes:
            changes.append(change)

    def changes_of(self, tenant: str) -> tuple[ControlChange, ...]:
        """The newest first, with those that concern everybody."""
        changes = [*self._changes.get(tenant, ()), *self._changes.get(EVERYBODY, ())]
        return tuple(sorted(changes, key=lambda change: -change.at_unix_ms))[: bounds.MAX_CONTROL_CHANGES]


def _change_of_halt(halt: Halt, at_unix_ms: int) -> ControlChange:
    return ControlChange(
        act="halted" if halt.active else "resumed",
        scope=halt.scope,
        name=halt.known_as[: bounds.MAX_SUMMARY_CHARS],
        by=halt.by,
        reason=halt.reason,
        at_unix_ms=halt.at_unix_ms or at_unix_ms,
    )


def _change_of_reset(reset: BreakerReset, at_unix_ms: int) -> ControlChange:
    breaker = reset.breaker
    return ControlChange(
        act="reset",
        scope=breaker.scope,
        name=breaker.known_as[: bounds.MAX_SUMMARY_CHARS],
        by=breaker.by,
        reason=reset.reason,
        at_unix_ms=breaker.since_unix_ms or at_unix_ms,
    )
