"""One program outside fills only its share of the dead letters; what is rejected beyond it is skipped by every fold."""

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.runtime.consume.loop import ConsumeLoop
from bulkhead.runtime.context import ServiceIdentity, make_context
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.control import MessageRejected

PIECE = b"x" * 500_000


class Handler:
    """Handles nothing."""

    ordered = False

    async def on_rejected(self, stored, code, reason):
        """Says nothing."""


class Delivery:
    """Of a message that will be rejected."""

    def __init__(self, stored):
        self.stored, self.ended = stored, ""

    async def term(self, reason):
        """The last word."""
        self.ended = reason


def make_loop(broker):
    seed = new_signing_seed()
    identity = ServiceIdentity("seed", seed, {"gateway": public_of(seed)})
    return ConsumeLoop(
        make_context("gateway", "0", MemoryBus(broker, "gateway"), identity), Handler(), shards=1, slots=1
    )


async def test_a_share_is_the_same_after_a_restart():
    broker = MemoryBroker.for_mesh()
    publisher, operator = MemoryBus(broker, "pub_shop"), MemoryBus(broker, "operator")
    for number in range(1, 21):
        at = subjects.mesh_subject("pub_shop", "gateway", "acme", f"pub_shop-t{number}")
        await publisher.publish(at, PIECE, {"ce-id": f"{number}"}, f"{number}")
    stored = await operator.read(subjects.inbox_stream("gateway"), "mesh.pub_shop.gateway.>")
    assert len(stored) == 20
    for half in (stored[:10], stored[10:]):
        loop = make_loop(broker)
        for row in half:
            await loop._reject_delivery(Delivery(row), "malformed_body", "it is no JSON")
    assert len(await operator.read(subjects.DEAD_LETTERS_STREAM, "dead.>")) == 16


async def test_one_publisher_fills_only_its_share_of_the_dead_letters():
    broker = MemoryBroker.for_mesh()
    loop, operator = make_loop(broker), MemoryBus(broker, "operator")

    async def reject(sender, number):
        at = subjects.mesh_subject(sender, "gateway", "acme", f"{sender}-t{number}")
        delivery = Delivery(StoredMessage(at, {"ce-id": f"{number}"}, PIECE, number, 1))
        await loop._reject_delivery(delivery, "malformed_body", "it is no JSON")
        assert delivery.ended == "malformed_body"

    for number in range(1, 21):
        await reject("pub_shop", number)
    await reject("pub_other", 21)
    letters = await operator.read(subjects.DEAD_LETTERS_STREAM, "dead.>")
    of_shop = [row for row in letters if "pub_shop" in row.subject]
    assert len(of_shop) == 16 and sum(len(row.body) for row in of_shop) <= bounds.MAX_DEAD_LETTER_BYTES_PER_DAY
    assert len(letters) == len(of_shop) + 1, "another one's share is its own"
    stored = await operator.read(subjects.inbox_stream("gateway"), "mesh.gateway.gateway.>")
    facts = [MessageRejected.model_validate_json(row.body) for row in stored]
    assert sorted(fact.sequence for fact in facts) == list(range(1, 22)), "each is skipped by every fold"
    assert {bool(fact.dead_letter_id) for fact in facts if "no dead letter is kept" in fact.reason} == {False}
