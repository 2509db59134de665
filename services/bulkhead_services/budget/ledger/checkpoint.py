"""Checkpoints of the ledger: facts that outlive the messages they are made of, so that a rebuild reads only the tail.

In: the newest checkpoint and what came after it, up to a cut. Out: the parts of the next one, then its seal. A cut is
a sequence of each inbox, for replies of each edge, with the reservation of every settlement before it: then what a
checkpoint holds is the ledger's balances and its open reservations, and nothing else. Made from the streams and never
from Redis.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import chain, islice

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_CHECKPOINT_PARTS, MAX_CHECKPOINT_ROWS, MAX_CHECKPOINT_SETTLED
from bulkhead_contracts.budget import (
    LedgerBalance,
    LedgerCheckpointed,
    LedgerEntry,
    LedgerMarked,
    LedgerPart,
    LedgerSettled,
    ReplyPosition,
    Units,
)
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.accounts import is_account_expired
from bulkhead_services.budget.ledger.model import Balance, LedgerState, ReservationEntry, UnitSums
from bulkhead_services.budget.ledger.replies import EDGES, ReplyEdge, reply_ends
from bulkhead_services.budget.ledger.store import LedgerStore, RedisFailure

log = Log("budget.checkpoint")

JOURNAL, JOURNAL_INBOX = "journal", subjects.inbox_stream("journal")
SETTLED_INBOX = subjects.inbox_stream("budget")
TENANT, SEAL, PART = "checkpoint", "seal", "part"
"""Tenant of the subjects; no publisher may use its name."""
MARKS = "ledger"
"""Tenant and task of the marks of rebuilds: they belong to none."""
SEALS = subjects.mesh_subject("budget", JOURNAL, TENANT, SEAL)
ROLE = "checkpointer"
FIRST_LOOK_S = 5.0
"""A replica looks so soon after its start: whether a checkpoint is due is told by the streams, not by its uptime."""
LEASE_MS = 60_000
HOUR_MS = 3_600_000
GIVEN_UP = "given-up:"
"""Before the name of what was settled with nothing by who gave up asking: its reservation may come yet, behind the cut.
Without it, that would be held for nobody. A version before takes it for the name of nothing."""
MAX_KEY_CHARS = 300
"""Characters of such a name."""
LATE_MS = 120_000
"""A doer asks again within 12 s; so long after it was reserved no replica still stores its copy of the fact."""
MAX_SETTLED_EARLIER = 100_000
"""Count of names that were reserved last; at 800 a second these are two minutes."""
MAX_SETTLED_NAMES = 20_000
"""Bound of their number, which bounds a rebuild; at 800 a second twice the time until a doer asks again."""


@dataclass(frozen=True, slots=True)
class FoldedLedger:
    """A ledger and how far the two inboxes have been folded into it; how far replies have, it says itself.
    own_messages: a checkpoint's, behind its mark."""

    ledger: LedgerState
    journal_sequence: int = 0
    budget_sequence: int = 0
    at_unix_ms: int = 0
    own_messages: int = 0


FoldInboxes = Callable[[FoldedLedger, int, int, Mapping[str, int], Callable[[], Awaitable[None]]], Awaitable[object]]
"""Folds on up to these sequences: of both inboxes, and of each edge's replies; what it calls after every page may stop
it."""


async def yield_to_admissions() -> None:
    """Admissions come first."""
    await asyncio.sleep(0)


# Pure


def prune_ledger(ledger: LedgerState, now_unix_ms: int, keep_ms: int) -> None:
    """Forget what cannot matter any more. A reservation that nobody settled in `keep_ms` stays spent, for good."""
    ledger.settled_earlier |= {
        key: entry.at_unix_ms for key, entry in ledger.entries.items() if entry.state == "settled"
    }
    late = [
        (reserved_unix_ms, key)
        for key, reserved_unix_ms in ledger.settled_earlier.items()
        if reserved_unix_ms + LATE_MS >= now_unix_ms
    ]
    ledger.settled_earlier = {key: reserved_unix_ms for reserved_unix_ms, key in nlargest(MAX_SETTLED_EARLIER, late)}
    if any(entry.state == "open" and entry.at_unix_ms + keep_ms < now_unix_ms for entry in ledger.entries.values()):
        ledger.read_unix_ms = now_unix_ms  # The cut of the replies lies behind all that such a doer did.
        model.lapse_overdue(ledger, now_unix_ms)
    for key, entry in list(ledger.entries.items()):
        if entry.at_unix_ms + {"lapsed": keep_ms, "early": LATE_MS}.get(entry.state, now_unix_ms) < now_unix_ms:
            del ledger.entries[key]
    for scope in list(ledger.balances):
        if is_account_expired(
            scope, ledger.expiry_by_scope.get(scope, 0) and ledger.expiry_by_scope[scope] + ledger.lease_ms, now_unix_ms
        ):
            del ledger.balances[scope]
            ledger.expiry_by_scope.pop(scope, None)


def add_settled_names(ledger: LedgerState) -> None:
    """Add the last names of what was settled before the checkpoint: an ask that comes late, under one of them,
    would hold money that nobody will ever settle.
    """
    for key, reserved_unix_ms in islice(ledger.settled_earlier.items(), MAX_SETTLED_NAMES):
        ledger.entries.setdefault(key, ReservationEntry("settled", at_unix_ms=reserved_unix_ms))


def parts_of(ledger: LedgerState, checkpoint: str) -> Iterator[LedgerPart]:
    """A ledger at a cut, pruned, in pieces that fit messages.

    Of what is settled, which is in the balances, only the names of late: two replicas that were asked for one
    reservation may store a fact each, the second one after the cut. And of settlements without a reservation those of
    late that charge nothing: who asked and heard no answer gave up what may only now be held. Of others nothing is
    still to come at a cut.
    """
    balances = (
        LedgerBalance(
            scope=scope,
            reserved=_units_in_order(balance.reserved),
            spent=_units_in_order(balance.spent),
            settled=balance.settled,
            stopped=balance.stopped,
            until_unix_ms=ledger.expiry_by_scope.get(scope, 0),
        )
        for scope, balance in ledger.balances.items()
    )
    entries = (
        LedgerEntry(
            key=key,
            ask=_units_in_order(entry.ask),
            scopes=model.scope_limits(entry.scopes),
            reserved_unix_ms=entry.at_unix_ms,
        )
        for key, entry in ledger.entries.items()
        if entry.state in ("open", "lapsed")
    )
    while balance_rows := tuple(islice(balances, MAX_CHECKPOINT_ROWS)):
        yield LedgerPart(checkpoint=checkpoint, balances=balance_rows)
    while entry_rows := tuple(islice(entries, MAX_CHECKPOINT_ROWS // 2)):
        yield LedgerPart(checkpoint=checkpoint, entries=entry_rows)
    settled = (
        LedgerSettled(key=key, reserved_unix_ms=reserved_unix_ms)
        for key, reserved_unix_ms in ledger.settled_earlier.items()
    )
    given_up = (
        LedgerSettled(key=f"{GIVEN_UP}{key}", reserved_unix_ms=entry.at_unix_ms)
        for key, entry in ledger.entries.items()
        if entry.state == "early"
        and not entry.estimated
        and not any(entry.usage)
        and len(key) <= MAX_KEY_CHARS - len(GIVEN_UP)
    )
    named = chain(settled, islice(given_up, MAX_SETTLED_EARLIER))
    while names := tuple(islice(named, MAX_CHECKPOINT_SETTLED)):
        yield LedgerPart(checkpoint=checkpoint, settled=names)


def _units_in_order(amount: UnitSums) -> Units:
    """The units in order, as a row has them."""
    return amount.tokens, amount.cost_usd_micros, amount.model_calls, amount.tool_calls, amount.wall_ms


def fold_part(ledger: LedgerState, part: LedgerPart) -> None:
    """A part back into a ledger. What had lapsed is open again: the next admission sees that its lease is over."""
    for account in part.balances:
        ledger.balances[account.scope] = Balance(
            UnitSums(*account.reserved), UnitSums(*account.spent), account.settled, account.stopped
        )
        if account.until_unix_ms:
            ledger.expiry_by_scope[account.scope] = account.until_unix_ms
    for row in part.entries:
        ledger.entries[row.key] = ReservationEntry(
            "open", UnitSums(*row.ask), model.scopes_from(row.scopes), row.reserved_unix_ms, 1
        )
    for settled in part.settled:
        if settled.key.startswith(GIVEN_UP):
            ledger.entries[settled.key.removeprefix(GIVEN_UP)] = ReservationEntry(
                "early", at_unix_ms=settled.reserved_unix_ms
            )
        else:
            ledger.settled_earlier[settled.key] = settled.reserved_unix_ms


def reopen_lapsed(ledger: LedgerState) -> None:
    """Count what has lapsed as held again, as a fold has it: whether a lease is over is judged by who admits."""
    for key, entry in ledger.entries.items():
        if entry.state == "lapsed":
            for scope in entry.scopes:
                old = ledger.balances.get(scope.name)
                if old is not None:
                    ledger.balances[scope.name] = old._replace(
                        reserved=old.reserved.plus(entry.ask), spent=old.spent.minus(entry.ask)
                    )
            ledger.entries[key] = replace(entry, state="open")


# The streams


async def newest_checkpoint(bus: Bus, lease_ms: int, journal_end: int, budget_end: int) -> FoldedLedger:
    """The newest whole checkpoint that lies before these ends of the two inboxes; none, and all is read. Raises
    BusError."""
    last = await bus.last(JOURNAL_INBOX, SEALS)
    if last is None:
        return FoldedLedger(LedgerState(lease_ms))
    if (checkpoint := await _open_checkpoint(bus, last, lease_ms, journal_end, budget_end)) is not None:
        return checkpoint
    # Its maker stood still for long, and what came before was removed meanwhile: the ones before are whole.
    # Old ones are purged, so that there are few.
    for stored in reversed([seal async for seal in stored_messages(bus, JOURNAL_INBOX, SEALS)]):
        if stored.sequence < last.sequence and (
            checkpoint := await _open_checkpoint(bus, stored, lease_ms, journal_end, budget_end)
        ):
            return checkpoint
    return FoldedLedger(LedgerState(lease_ms))


async def _open_checkpoint(
    bus: Bus, stored: StoredMessage, lease_ms: int, journal_end: int, budget_end: int
) -> FoldedLedger | None:
    """The checkpoint under a seal; None when it is not whole, or of other streams. Raises BusError."""
    ledger = LedgerState(lease_ms)
    try:
        seal = inbound.read_message(stored, JOURNAL).body
        assert isinstance(seal, LedgerCheckpointed), "nobody says anything else there"
        if seal.journal_sequence > journal_end or seal.budget_sequence > budget_end:
            # One of the streams was made anew: what the seal counts is not what lies there now.
            log.warning("checkpoint_of_other_streams", checkpoint=seal.checkpoint)
            return None
        for position in seal.replies:
            edge = ReplyEdge(position.doer, position.asker)
            if position.sequence > await bus.last_sequence(edge.stream):
                log.warning("checkpoint_of_other_streams", checkpoint=seal.checkpoint, stream=edge.stream)
                return None
            ledger.reply_positions[edge.name] = position.sequence
        for sequence in seal.parts:
            fold_part(ledger, await _read_part(bus, seal.checkpoint, sequence))
    except Unreadable as error:
        log.warning("checkpoint_unreadable", reason=error.reason)
        return None
    await _apply_earlier_rebuild_marks(bus, ledger, seal.journal_sequence)
    return FoldedLedger(
        ledger, seal.journal_sequence, seal.budget_sequence, seal.at_unix_ms, own_messages=len(seal.parts) + 1
    )


async def _apply_earlier_rebuild_marks(bus: Bus, ledger: LedgerState, until: int) -> None:
    """The rebuilds before a checkpoint: what was written under a ledger before them may still come after it."""
    async for stored in stored_messages(bus, JOURNAL_INBOX, subjects.mesh_subject("budget", JOURNAL, MARKS, MARKS)):
        if stored.sequence > until:
            return
        with suppress(Unreadable):
            body = inbound.read_message(stored, JOURNAL).body
            if isinstance(body, LedgerMarked):
                model.apply_rebuild_mark(ledger, body.epoch)


async def _read_part(bus: Bus, checkpoint: str, sequence: int) -> LedgerPart:
    subject = subjects.mesh_subject("budget", JOURNAL, TENANT, PART)
    page = await bus.read(JOURNAL_INBOX, subject, after=sequence - 1, limit=1)
    body = inbound.read_message(page[0], JOURNAL).body if page and page[0].sequence == sequence else None
    if not isinstance(body, LedgerPart) or body.checkpoint != checkpoint:
        raise Unreadable("missing_part", f"part {sequence} of checkpoint {checkpoint} is not there")
    return body


class Checkpointer:
    """One replica's; the one that leads makes them."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        store: LedgerStore,
        clock: Callable[[], int],
        fold: FoldInboxes,
        *,
        holder: str,
        lease_ms: int,
        keep_ms: int,
        every_s: float,
        min_new_messages: int,
    ) -> None:
        self._bus, self._publisher, self._store, self._clock, self._fold = bus, publisher, store, clock, fold
        self._holder, self._lease_ms, self._keep_ms = holder, lease_ms, keep_ms
        self._every_s, self._messages = every_s, min_new_messages
        self.made = 0

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = min(FIRST_LOOK_S, self._every_s)
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._every_s
            try:
                if await self._store.take_lead(ROLE, self._holder, max(LEASE_MS, int(self._every_s * 2_000))):
                    await self.make_checkpoint()
            except (BusError, Unreadable, *RedisFailure) as error:
                # The one before stands; a rebuild reads a longer tail.
                log.warning("checkpoint_not_made", reason=str(error) or type(error).__name__)

    async def resign_lead(self) -> None:
        """At the end: whoever takes this replica's place is not to wait for a lease of minutes."""
        with suppress(*RedisFailure):
            await self._store.resign_lead(ROLE, self._holder)

    async def make_checkpoint(self, *, at_once: bool = False) -> bool:
        """Make one if it is due. Raises BusError, Unreadable."""
        # The settlements first: each one's reservation was stored before it, and so lies before the journal's mark.
        replies = await reply_ends(self._bus)
        settled = await self._bus.last(SETTLED_INBOX, "mesh.*.budget.>")
        facts = await self._bus.last(JOURNAL_INBOX, f"mesh.budget.{JOURNAL}.>")
        budget, journal = (
            last_message.sequence if last_message is not None else 0 for last_message in (settled, facts)
        )
        start = await newest_checkpoint(self._bus, self._lease_ms, journal, budget)
        now_unix_ms = self._clock()
        # Without its own: a large one would call for the next, for ever.
        new_messages = (budget - start.budget_sequence) + (journal - start.journal_sequence) - start.own_messages
        positions = start.ledger.reply_positions
        settles = budget > start.budget_sequence or any(end > positions.get(edge, 0) for edge, end in replies.items())
        if not at_once and new_messages < self._messages and (now_unix_ms - start.at_unix_ms < HOUR_MS or not settles):
            return False
        checkpoint = uuid.uuid4().hex
        journal = await self._publish_to_journal(LedgerMarked(epoch=checkpoint), SEAL + "-mark", checkpoint)
        await self._fold(start, journal, budget, replies, yield_to_admissions)
        ledger = start.ledger
        prune_ledger(ledger, ledger.folded_unix_ms, self._keep_ms)
        reopen_lapsed(ledger)
        numbered_parts = enumerate(parts_of(ledger, checkpoint))
        parts = [
            await self._publish_to_journal(part, PART, f"{checkpoint}/{number}") for number, part in numbered_parts
        ]
        if len(parts) > MAX_CHECKPOINT_PARTS:
            log.error("checkpoint_too_large", parts=len(parts))
            return False
        await self._publish_to_journal(
            LedgerCheckpointed(
                checkpoint=checkpoint,
                journal_sequence=journal,
                budget_sequence=budget,
                parts=tuple(parts),
                at_unix_ms=now_unix_ms,
                replies=tuple(
                    ReplyPosition(doer=edge.doer, asker=edge.asker, sequence=ledger.reply_positions.get(edge.name, 0))
                    for edge in EDGES
                ),
            ),
            SEAL,
            f"{checkpoint}/seal",
        )
        self.made += 1
        log.info("checkpoint_made", checkpoint=checkpoint, folded=new_messages, parts=len(parts))
        return True

    async def _publish_to_journal(self, body: Body, task: str, index: str) -> int:
        ack = await self._publisher.send(JOURNAL, body, tenant=TENANT, task=task, cause=index, index=task)
        return ack.sequence
