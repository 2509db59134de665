"""Limits are facts: of the replicas that change or read them none loses, repeats or forgets what stands."""

import asyncio
from collections.abc import Awaitable, Callable

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_LIMIT_CHANGES
from bulkhead_contracts.budget import Limit, LimitsReplied, LimitsRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import CALLER_ROLES, RequesterClaim
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.limits.changes import check_requester
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry

NOW, TENANT = 1_795_231_204_272, "demo"


class Broker(MemoryBroker):
    """One whose followers may be behind."""

    behind: int | None = None

    def horizon(self, stream: str) -> int | None:
        return self.behind


def book_of(broker: MemoryBroker, store: MemoryStore) -> TenantLimitsRegistry:
    """A replica's."""
    bus = MemoryBus(broker, "budget")
    return TenantLimitsRegistry(
        bus, Publisher("budget", bus, b"b" * 32, lambda: NOW), store, lambda: NOW, lambda why: None
    )


def wish(name: str, target: str, tokens: int, revision: int | None = None) -> ReceivedMessage:
    """An operator sets a limit; the same name is the same request."""
    ann = RequesterClaim(tenant=TENANT, person="ann", role="operator", via="api_key")
    body = LimitsRequested(requester=ann, target=target, limit=Limit(tokens=tokens), expect_revision=revision)
    head = Envelope(id=name, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return ReceivedMessage(head, body, TENANT, "limits", "gateway", 0, NOW, 1)


def test_every_role_of_a_tenant_reads_its_limits_and_operators_alone_change_them() -> None:
    for role in CALLER_ROLES:
        claim = RequesterClaim(tenant=TENANT, person="ann", role=role, via="api_key")
        assert check_requester(LimitsRequested(requester=claim), TENANT) is None
        refusal = check_requester(LimitsRequested(requester=claim, target="month", limit=Limit(tokens=1)), TENANT)
        assert (refusal is None) == (role == "operator")


async def stored(broker: MemoryBroker) -> int:
    """How many facts tell of limits."""
    return len(broker.get_stream(subjects.inbox_stream("journal")).read("mesh.budget.journal.*.limits.*.*", 0, 1_000))


async def answered(ask: Callable[[], Awaitable[LimitsReplied]]) -> LimitsReplied:
    reply = await ask()
    assert reply.failure is None, reply.failure
    return reply


async def standing() -> MemoryStore:
    """A ledger that answers."""
    store = MemoryStore(lease_ms=60_000)
    server = await store.connect()
    assert await store.lock_rebuild("0", 1_000)
    await store.write_ledger("0", store._ledger, NOW, _go_on)
    assert await store.activate_ledger("0", server, {})
    return store


async def _go_on() -> None: ...


async def test_of_two_changes_at_once_none_is_lost():
    broker, store = Broker.for_mesh(), await standing()
    one, other = book_of(broker, store), book_of(broker, store)
    await asyncio.gather(
        answered(lambda: one.answer_limits(wish("a", "user/ada", 10))),
        answered(lambda: other.answer_limits(wish("b", "month", 20))),
    )
    fresh = await book_of(broker, store).last_read_limits(TENANT)
    assert fresh.revision.number == 2 == await stored(broker)
    assert {target: limit.tokens for target, limit in fresh.limits.items()} == {"user/ada": 10, "month": 20}


async def test_a_change_whose_answer_was_lost_is_made_once():
    broker, store = Broker.for_mesh(), await standing()
    book = book_of(broker, store)
    first = await answered(lambda: book.answer_limits(wish("a", "user/ada", 10)))
    again = await answered(lambda: book_of(broker, store).answer_limits(wish("a", "user/ada", 10)))
    assert again == first and await stored(broker) == 1


async def test_a_follower_that_is_behind_takes_no_limit_back():
    broker, store = Broker.for_mesh(), await standing()
    book = book_of(broker, store)
    for name, tokens in (("a", 10), ("b", 5)):
        await answered(lambda name=name, tokens=tokens: book.answer_limits(wish(name, "user/ada", tokens)))
    broker.behind = 1
    await book.reread_limits(TENANT, NOW)
    current = await book.last_read_limits(TENANT)
    assert current.revision.number == 2 and current.limits["user/ada"].tokens == 5


async def test_a_change_made_on_old_knowledge_is_refused():
    broker, store = Broker.for_mesh(), await standing()
    book = book_of(broker, store)
    await answered(lambda: book.answer_limits(wish("a", "user/ada", 10, revision=0)))
    reply = await book.answer_limits(wish("b", "user/ada", 99, revision=0))
    assert reply.failure is not None and reply.failure.code == "changed_meanwhile"
    assert await stored(broker) == 1


async def test_a_change_that_is_asked_for_again_takes_no_later_one_back():
    broker, store = Broker.for_mesh(), await standing()
    book = book_of(broker, store)
    names = [f"change{number}" for number in range(MAX_LIMIT_CHANGES)]
    for number, name in enumerate(names):
        await answered(lambda name=name, number=number: book.answer_limits(wish(name, "user/ada", 10 + number)))
    last = 10 + MAX_LIMIT_CHANGES - 1
    for number in (MAX_LIMIT_CHANGES - 2, 0):
        again = wish(names[number], "user/ada", 10 + number)
        reply = await answered(lambda again=again: book_of(broker, store).answer_limits(again))
        assert [one.limit.tokens for one in reply.limits] == [last]
    assert await stored(broker) == MAX_LIMIT_CHANGES
    # So far back, and no further: then the first has been forgotten.
    await answered(lambda: book.answer_limits(wish("more", "month", 5)))
    reply = await answered(lambda: book.answer_limits(wish(names[0], "user/ada", 10)))
    assert {one.target: one.limit.tokens for one in reply.limits} == {"user/ada": 10, "month": 5}
