"""Old checkpoints of the ledger leave, on a real nats-server; a rebuild finds what it needs, whatever is removed."""

import time
from collections import Counter

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.runtime.consume import packed_facts
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import LedgerCheckpointed, Reserved, ReservedRow, ReservedTogether, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from bulkhead_infra.nats.purge import purge
from bulkhead_infra.nats.trimming import JOURNAL_INBOX, PARTS, SEALS
from bulkhead_services.budget.ledger import checkpoint, model, rebuild
from bulkhead_services.budget.ledger.checkpoint import Checkpointer
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import Scope, UnitSums
from tests.e2e.fixtures.world import until
from tests.integration.broker.test_purge import RETENTION, buses, end
from tests.integration.permissions.broker import Broker
from tests.samples import sample

NOW, LEASE_MS, KEEP_MS = 1_795_000_000_000, 60_000, 864_000_000
MONTH = Scope("month:demo:2026-11", UnitSums(tokens=10**9))
EVERYTHING = 10**9


def maker(bus: JetStreamBus) -> Checkpointer:
    publisher, store = Publisher("budget", bus, b"b" * 32, lambda: NOW), MemoryStore(lease_ms=LEASE_MS)
    keeper = rebuild.LedgerKeeper(
        bus, publisher, store, lambda: NOW, lease_ms=LEASE_MS, keep_ms=KEEP_MS, rebuild_at_start=True, tail_grace_s=0.01
    )
    return Checkpointer(
        bus,
        publisher,
        store,
        lambda: NOW,
        keeper.fold_inboxes,
        holder="0",
        lease_ms=LEASE_MS,
        keep_ms=KEEP_MS,
        every_s=60.0,
        min_new_messages=10,
    )


async def reserve(bus: JetStreamBus, number: int) -> None:
    fact = sample(Reserved, reservation_id=f"r{number}", scopes=model.scope_limits([MONTH]), reserved_unix_ms=NOW)
    publisher = Publisher("budget", bus, b"b" * 32, lambda: NOW)
    await publisher.send("journal", fact, tenant="demo", task="t1", cause=f"r{number}")


async def reserve_together(bus: JetStreamBus, *numbers: int) -> None:
    rows = tuple(
        ReservedRow(
            id=f"{number:032x}",
            cause=f"r{number}",
            task=f"t{number}",
            reserved=sample(
                Reserved, reservation_id=f"r{number}", scopes=model.scope_limits([MONTH]), reserved_unix_ms=NOW
            ),
        )
        for number in numbers
    )
    publisher = Publisher("budget", bus, b"b" * 32, lambda: NOW)
    body = ReservedTogether(rows=rows)
    await publisher.send("journal", body, tenant=packed_facts.LEDGER_TENANT, task="demo", cause=rows[0].cause)


async def left(bus: JetStreamBus, stream: str) -> Counter[str]:
    found = await bus.read(stream, "mesh.budget.journal.*.checkpoint.*.*", limit=200)
    return Counter(one.task for one in found)


async def test_old_checkpoints_go_and_the_newest_two_and_what_is_being_made_stay(broker: Broker) -> None:
    async with buses(broker) as of:
        budget, operator = await of("budget"), await of("operator")
        checkpoints = maker(budget)
        for number in range(5):
            await reserve(budget, number)
            await reserve_together(budget, 10 + number, 20 + number)
            assert await checkpoints.make_checkpoint(at_once=True)
            if number == 0:  # One alone stays whole.
                await purge(broker.url, broker.seed, RETENTION)
        made = Counter({"part": 10, "seal": 5, "seal-mark": 5})
        assert await left(budget, JOURNAL_INBOX) == made

        async def copied() -> bool:
            return await left(operator, subjects.JOURNAL_STREAM) == made

        await until(copied, "the journal has them all")
        before = await checkpoint.newest_checkpoint(budget, LEASE_MS, EVERYTHING, EVERYTHING)
        done = await purge(broker.url, broker.seed, RETENTION)
        assert done.messages[JOURNAL_INBOX] == done.messages[subjects.JOURNAL_STREAM] == 12
        for stream in (JOURNAL_INBOX, subjects.JOURNAL_STREAM):
            assert await left(operator, stream) == Counter({"part": 4, "seal": 2, "seal-mark": 2}), stream
        assert await checkpoint.newest_checkpoint(budget, LEASE_MS, EVERYTHING, EVERYTHING) == before
        assert before.ledger.balances[MONTH.name].reserved == UnitSums(tokens=1_500)
        facts = await budget.read(JOURNAL_INBOX, subjects.mesh_subject("budget", "journal", "demo", "t1"))
        assert len(facts) == 5, "nothing but checkpoints is trimmed"
        again = await purge(broker.url, broker.seed, RETENTION)
        assert not sum(again.messages.values())
        # What was reserved together goes when it is old, but for what the last checkpoint but one has not counted.
        later = await purge(broker.url, broker.seed, RETENTION, now_unix_ms=time.time_ns() // 1_000_000 + 2_000_000)
        assert later.messages[JOURNAL_INBOX] == later.messages[subjects.JOURNAL_STREAM] == 4
        assert len(await budget.read(JOURNAL_INBOX, packed_facts.batch_subject("demo"))) == 1
        assert await checkpoint.newest_checkpoint(budget, LEASE_MS, EVERYTHING, EVERYTHING) == before


async def test_a_checkpoint_that_lost_a_part_is_neither_counted_nor_believed(broker: Broker) -> None:
    """Its maker stood still between a part and the seal, and others made and removed some meanwhile."""
    async with buses(broker) as of:
        budget = await of("budget")
        checkpoints = maker(budget)
        for number in range(3):
            await reserve(budget, number)
            assert await checkpoints.make_checkpoint(at_once=True)
        (*_, last) = await budget.read(JOURNAL_INBOX, SEALS)
        whole = LedgerCheckpointed.model_validate_json(last.body)
        late = whole.model_copy(update={"checkpoint": "late", "parts": (1,)})
        await checkpoints._publish_to_journal(late, "seal", "late/seal")
        assert await purge(broker.url, broker.seed, RETENTION)
        assert len(await budget.read(JOURNAL_INBOX, SEALS)) == 3 and len(await budget.read(JOURNAL_INBOX, PARTS)) == 4
        start = await checkpoint.newest_checkpoint(budget, LEASE_MS, EVERYTHING, EVERYTHING)
        assert start.journal_sequence == whole.journal_sequence
        assert start.ledger.balances[MONTH.name].reserved.tokens == 300


async def test_a_task_whose_replies_no_checkpoint_has_counted_stays_whole(broker: Broker) -> None:
    """A rebuilt ledger would hold for ever what they settled."""
    async with buses(broker) as of:
        budget, operator = await of("budget"), await of("operator")
        await reserve(budget, 1)
        used = Settled(reservation_id="r1", call_id="c", usage=Usage(input_tokens=7))
        doer = Publisher("rag", await of("rag"), b"r" * 32, lambda: NOW)
        reply = CallDeferred(call_id="c", after_ms=1, settled=(used,))
        await doer.send("worker", reply, tenant="demo", task="t1", cause="r1")
        later_ms = await end(of, "t1", "demo") + 2_000_000
        places = (
            ("INBOX_WORKER", subjects.mesh_subject("rag", "worker", "demo", "t1")),
            ("INBOX_GATEWAY", subjects.mesh_subject("planner", "gateway", "demo", "t1")),
            (JOURNAL_INBOX, subjects.mesh_subject("budget", "journal", "demo", "t1")),
        )

        async def lying() -> list[int]:
            return [len(await operator.read(stream, subject)) for stream, subject in places]

        await purge(broker.url, broker.seed, RETENTION, now_unix_ms=later_ms)
        assert await lying() == [1, 1, 1]
        assert await maker(budget).make_checkpoint(at_once=True)
        await purge(broker.url, broker.seed, RETENTION, now_unix_ms=later_ms)
        assert await lying() == [0, 0, 0]
        start = await checkpoint.newest_checkpoint(budget, LEASE_MS, EVERYTHING, EVERYTHING)
        assert start.ledger.balances[MONTH.name].spent == UnitSums(tokens=7)
