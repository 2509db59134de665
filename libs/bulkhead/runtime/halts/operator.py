"""Halts by people: who may set and lift which, and how they are stored. Budget does it for a tenant's
people, the command line for who operates the mesh.

In: a request, and the entry that stands. Out: the new entry, or why not; then the entry, live at once,
and the fact that tells who and why. The entry comes first: a halt never waits for the journal.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, WrongLastSequence
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead.runtime.publish.publisher import Publisher, publish_persistently
from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.control import Breaker, BreakerReset, Halt, HaltScope, Switched
from bulkhead_contracts.result import Failure

HALT_CODE = "halted_by_operator"
OPERATOR = "operator:"
"""Who operates the mesh, in `by`; a tenant's people are `<tenant>/<person>`."""
EVERYBODY, HALTS = subjects.EVERYBODY, "halts"
"""Stand for tenant and task where a fact is about more than one."""
SCOPES: tuple[HaltScope, ...] = ("task", "tenant", "agent", "tool", "model", "feature")
MAX_STORE_TRIES = 5
CONTENT_DIGEST_CHARS = 16
MAX_ID_CHARS = 64 - 1 - CONTENT_DIGEST_CHARS
Entry = TypeVar("Entry", Halt, Breaker)


@dataclass(frozen=True, slots=True)
class HaltRequest:
    """A request of a person to halt something, or (`active=False`) to resume it.

    tenant: whose calls, "" for everybody's. by: see OPERATOR. reason: why, in the words of who wants it. change: what a
    repeat of it is known by, see `change_of`; "" for nothing. exact: this name alone is meant; otherwise it is a token,
    and all that look like it are.
    """

    scope: HaltScope
    tenant: str
    name: str
    active: bool
    reason: str
    by: str
    at_unix_ms: int
    change: str = ""
    exact: bool = True

    @property
    def is_operator(self) -> bool:
        """True if the request comes from an operator of the whole mesh."""
        return self.by.startswith(OPERATOR)


def change_of(request: str, content: str) -> str:
    """Name by which a request is known: its id, which its sender chooses, and what it asks for."""
    return f"{request[:MAX_ID_CHARS]}-{hashlib.sha256(content.encode()).hexdigest()[:CONTENT_DIGEST_CHARS]}"


def find_repeat(present: Entry | None, change: str) -> Entry | Failure | None:
    """The entry that stands, when this very request was made before, whatever others changed since; why not, when its
    id stood for another one; else None."""
    if present is None or not change or change in present.changes:
        return present if change else None
    request_id = change.rpartition("-")[0]
    if any(earlier_change.rpartition("-")[0] == request_id for earlier_change in present.changes):
        description = f"something else was asked of {present.scope} {present.known_as} under this key"
        return Failure.from_text(
            "idempotency_reused", description, "use a new key, or repeat the first request unchanged"
        )
    return None


def judge_request(request: HaltRequest, present: Halt | None) -> Halt | Failure:
    """The entry that follows, or why nothing may change. A repeated request gets the entry that stands."""
    if (repeat := find_repeat(present, request.change)) is not None:
        return repeat
    halted = present is not None and present.active
    subject = f"{request.scope} {request.name}"
    if present is not None and halted and not present.pauses:
        return Failure.from_text(
            "ended", f"{subject} is over: {present.reason}", "what was ended does not go on: submit it again"
        )
    if present is not None and halted and present.by.startswith(OPERATOR) and not request.is_operator:
        # A tenant does not lift a halt that was set from outside of it.
        who = present.by.removeprefix(OPERATOR)
        hint = "only they let it go on: `bulkhead resume` on their machine"
        return Failure.from_text(
            "not_yours", f"{subject} was halted by who operates the mesh ({who}): {present.reason}", hint
        )
    if present is not None and halted and not request.active and present.code == CEILING_CODE:
        hint = f"`bulkhead topup {request.name} --usd X`, or raise the limit that it names"
        return Failure.from_text("at_its_ceiling", f"{subject} waits for money, not for a word: {present.reason}", hint)
    if not request.active and not halted:
        return Failure.from_text("not_halted", f"{subject} is not halted", "`bulkhead halts` lists what is")
    takes_over = request.is_operator and present is not None and not present.by.startswith(OPERATOR)
    if present is not None and halted and request.active and not takes_over:
        return present
    return Halt(
        active=request.active,
        scope=request.scope,
        tenant=request.tenant,
        name=subjects.as_token(request.name),
        code=HALT_CODE,
        reason=request.reason or "no reason was given",
        by=request.by[:64],
        pauses=True,
        at_unix_ms=request.at_unix_ms,
        changes=_remember_change(present, request.change),
        called=request.name if request.exact else "",
    )


def _remember_change(present: Halt | Breaker | None, change: str) -> tuple[str, ...]:
    before = present.changes if present is not None else ()
    return (*before, change)[-bounds.MAX_SWITCH_CHANGES :] if change else before


async def switch_halt(bus: Bus, publisher: Publisher, request: HaltRequest) -> Halt | Failure:
    """Do it. Raises BusError; when the fact alone is missing, the halt stands all the same."""
    for _ in range(MAX_STORE_TRIES):
        key, meant, present, after = await _find_entry(bus, request)
        entry = judge_request(meant, present)
        if isinstance(entry, Failure) or entry is present:
            return entry
        if await store_entry(bus, publisher, key, entry.model_dump_json().encode(), after):
            await publish_switched(publisher, entry)
            return entry
    description = f"others halt and resume {request.scope} {request.name} at this moment"
    return Failure.from_text("busy", description, "look at `bulkhead halts`, then try again")


async def _find_entry(bus: Bus, request: HaltRequest) -> tuple[str, HaltRequest, Halt | None, int]:
    """The subject of a wish's entry, the wish as it is judged there, the present entry and its sequence.

    A halt under the token alone applies to this name as well, and is lifted where it is stored. Raises BusError.
    """
    key, token = subjects.halt_key(request.scope, request.tenant, request.name), subjects.as_token(request.name)
    present, after = await _read_entry(bus, key)
    if token != request.name and not (present is not None and present.active):
        loose = subjects.halt_key(request.scope, request.tenant, token)
        older, older_sequence = await _read_entry(bus, loose)
        if older is not None and older.active and not older.called:
            return loose, replace(request, name=token, exact=False), older, older_sequence
    return key, request, present, after


async def _read_entry(bus: Bus, key: str) -> tuple[Halt | None, int]:
    stored = await bus.last(subjects.CONTROL_STREAM, key)
    return (Halt.model_validate_json(stored.body), stored.sequence) if stored is not None else (None, 0)


def judge_reset(breaker: Breaker | None, what: str, person: str) -> Failure | None:
    """The reason why a person of a tenant may not close this breaker of the tenant's; None when they may.

    No caller resets its own breaker: neither a tenant that floods, nor the person whose calls opened it.
    """
    if breaker is not None and breaker.scope == "tenant":
        hint = "it is tried again by itself; who operates the mesh may reset it: `bulkhead breakers reset`"
        return Failure.from_text("not_yours", f"{what} holds your whole tenant back: {breaker.reason}", hint)
    if breaker is None or breaker.phase == "closed":
        return Failure.from_text("not_open", f"no breaker {what} of yours is open", "`bulkhead breakers` lists them")
    if person in breaker.actors:
        hint = "another operator of the tenant may reset it; else it is tried again by itself"
        return Failure.from_text(
            "tripped_it", f"{what} was opened by calls of {person}'s own tasks: {breaker.reason}", hint
        )
    return None


async def reset_breaker(
    bus: Bus, publisher: Publisher, breaker: Breaker, by: str, at_unix_ms: int, reason: str = "", change: str = ""
) -> Breaker | None:
    """Close a breaker by hand, and tell it; None when it has changed meanwhile. Raises BusError."""
    key = subjects.breaker_key(breaker.scope, breaker.tenant, breaker.known_as)
    stored = await bus.last(subjects.CONTROL_STREAM, key)
    if stored is None or Breaker.model_validate_json(stored.body) != breaker:
        return None
    # Not before it opened, whatever this machine's clock says: who folds would take it for news of before.
    since = max(at_unix_ms, breaker.since_unix_ms)
    same = breaker.model_dump(include={"scope", "tenant", "name", "called"})
    cause_fields: dict[str, Any] = {
        "reason": (f"reset by {by}: {reason}" if reason else f"reset by {by}")[: bounds.MAX_REASON_CHARS],
        "by": by[:64],
        "changes": _remember_change(breaker, change),
    }
    closed = Breaker(**same, **cause_fields, phase="closed", since_unix_ms=since)
    if not await store_entry(bus, publisher, key, closed.model_dump_json().encode(), stored.sequence):
        return None
    tenant = breaker.name if breaker.scope == "tenant" else breaker.tenant or EVERYBODY
    fact = BreakerReset(breaker=closed, was=breaker.reason, reason=reason)
    index = f"reset/{breaker.scope}/{breaker.tenant}/{breaker.known_as}/{stored.sequence}"
    await publisher.send(catalog.JOURNAL, fact, tenant=tenant, task=HALTS, index=index, actor=by)
    return closed


async def store_entry(bus: Bus, publisher: Publisher, key: str, body: bytes, after: int) -> bool:
    """Put an entry where sequence `after` is the last; False when it is not. Raises BusError."""
    headers, name = {"content-type": envelope.CONTENT_TYPE}, publisher.entry_id(key, f"{after}/{body.decode()}")
    try:
        await publish_persistently(lambda: bus.publish(key, body, headers, name, expect_last_on_subject=after))
    except WrongLastSequence:
        # A retry after a lost ack meets its own entry.
        stored = await bus.last(subjects.CONTROL_STREAM, key)
        return stored is not None and stored.body == body
    return True


async def publish_switched(publisher: Publisher, halt: Halt) -> None:
    """The fact that an entry stands. Raises BusError."""
    task = halt.name if halt.scope == "task" else HALTS
    tenant = halt.name if halt.scope == "tenant" else halt.tenant or EVERYBODY
    index = f"switched/{halt.scope}/{halt.tenant}/{halt.known_as}/{halt.at_unix_ms}/{halt.active}"
    await publisher.send(catalog.JOURNAL, Switched(halt=halt), tenant=tenant, task=task, index=index, actor=halt.by)


async def standing_halts(bus: Bus, tenant: str = "") -> list[Halt]:
    """Every halt of people that stands, or those that concern one tenant; the oldest first. Raises BusError."""
    halts: list[Halt] = []
    for scope in SCOPES:
        pattern = f"$KV.CONTROL.{scope}.{tenant}.*" if scope == "task" and tenant else f"$KV.CONTROL.{scope}.>"
        async for body in _entry_bodies(bus, pattern):
            halt = Halt.model_validate_json(body)
            if halt.active and halt.pauses and (not tenant or _concerns_tenant(halt, tenant)):
                halts.append(halt)
    return sorted(halts, key=lambda one: one.at_unix_ms)


async def read_breakers(bus: Bus, tenant: str = "") -> list[Breaker]:
    """Every breaker that ever opened, or those that concern one tenant; open ones first. Raises BusError."""
    entries = [Breaker.model_validate_json(body) async for body in _entry_bodies(bus, "$KV.CONTROL.breaker.>")]
    if tenant:
        entries = [row for row in entries if tenant == row.tenant or _concerns_tenant(row, tenant)]
    return sorted(entries, key=lambda row: (row.phase == "closed", row.scope, row.tenant, row.name))


def _concerns_tenant(entry: Halt | Breaker, tenant: str) -> bool:
    return entry.name == tenant if entry.scope == "tenant" else entry.tenant in ("", tenant)


async def _entry_bodies(bus: Bus, pattern: str) -> AsyncIterator[bytes]:
    async for stored in stored_messages(bus, subjects.CONTROL_STREAM, pattern):
        yield stored.body
