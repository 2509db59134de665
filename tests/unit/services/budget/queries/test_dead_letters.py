"""Budget tells a tenant's people of its own dead letters, and stores their dismissal beside them."""

from typing import Any, get_args

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.runtime import dead_letters
from bulkhead.runtime.consume.loop import bury_message
from bulkhead.runtime.context import Context, ServiceIdentity, make_context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.budget import (
    DeadLetterReplied,
    DeadLetterRequested,
    DeadLettersReplied,
    DeadLettersRequested,
    DismissalReplied,
    DismissalRequested,
)
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import RequesterClaim, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_services.budget.queries.dead_letters import DeadLetterQuery
from bulkhead_services.budget.watch.mesh_counts import open_letters

ROLES = [one for one in get_args(RequesterClaim.model_fields["role"].annotation) if one not in ("operator", "auditor")]
HEADERS = {"ce-type": "mesh.x.y.v1", "ce-id": "1", "Bulkhead-Grant": "a.b.c"}


class World:
    """Dead letters over the in-memory bus, buried as services bury them."""

    def __init__(self) -> None:
        self.broker = MemoryBroker.for_mesh()
        self.operator = MemoryBus(self.broker, "operator")
        self.book = DeadLetterQuery(self.context("budget"))
        self.buried = 0

    def context(self, service: str) -> Context:
        seed = new_signing_seed()
        identity = ServiceIdentity(f"seed-of-{service}", seed, {service: public_of(seed)})
        return make_context(service, "0", MemoryBus(self.broker, service), identity)

    async def bury(
        self,
        task: str,
        body: bytes = b"{}",
        *,
        tenant: str = "acme",
        subject: str = "",
        headers: dict[str, str] = HEADERS,
        service: str = "worker",
        reason: str = "it said: secret",
    ) -> None:
        self.buried += 1
        at = subject or subjects.mesh_subject("planner", service, tenant, task)
        await bury_message(
            self.context(service), StoredMessage(at, headers, body, self.buried, 1), "malformed_body", reason
        )

    def asked(self, body: Body, tenant: str, key: str = "1") -> ReceivedMessage:
        head = Envelope(
            id=envelope.derive_id("gateway", "", key), type=body.ce_type(), source="gateway", time_unix_ms=1
        )
        return ReceivedMessage(head, body, tenant, "halts", "gateway", 0, 1, 1)

    async def list(self, role: str = "operator", tenant: str = "acme", **wish: Any) -> DeadLettersReplied:
        return await self.book.list_letters(
            self.asked(DeadLettersRequested(requester=who(role, tenant), **wish), tenant)
        )

    async def show(self, letter: str, role: str = "operator", tenant: str = "acme") -> DeadLetterReplied:
        return await self.book.show_letter(
            self.asked(DeadLetterRequested(requester=who(role, tenant), letter=letter), tenant)
        )

    async def dismiss(
        self, letter: str, role: str = "operator", tenant: str = "acme", reason: str = "seen", key: str = "1"
    ) -> DismissalReplied:
        body = DismissalRequested(requester=who(role, tenant), letter=letter, reason=reason)
        return await self.book.dismiss_letter(self.asked(body, tenant, key))

    async def open_by_service(self) -> dict[str, int]:
        counts = await MemoryBus(self.broker, "budget").stream_counts(subjects.DEAD_LETTERS_STREAM, "dead.>")
        return open_letters(counts.by_subject)


def who(role: str, tenant: str) -> RequesterClaim:
    return RequesterClaim(tenant=tenant, person="ann", role=role, via="api_key")  # type: ignore[arg-type]


async def test_each_tenant_has_its_own_letters_and_what_names_no_tenant_is_nobodys() -> None:
    world = World()
    await world.bury("t1")
    await world.bury("t1", tenant="other")
    # Both lie under a tenant of the name `unknown`, which there may be.
    await world.bury("", subject="mesh.planner.worker.99.acme.t1.-")
    await world.bury("", subject="no.subject.of.ours")
    [mine] = (await world.list()).letters
    [others] = (await world.list(tenant="other")).letters
    assert (mine.task, mine.service, mine.sender, mine.type) == ("t1", "worker", "planner", "mesh.x.y.v1")
    assert mine.id != others.id and (await world.list(tenant="unknown")).letters == ()
    for letter in (others.id, others.id[:8]):
        found = [await world.show(letter), await world.dismiss(letter)]
        assert [one.failure.code for one in found if one.failure] == ["no_such_letter"] * 2
    assert len(await dead_letters.read_letters(world.operator)) == 4, "the command line has them all"
    assert (await world.list(tenant="other")).letters == (others,)


async def test_an_auditor_is_told_that_and_not_what() -> None:
    world = World()
    await world.bury("t1", b'{"secret": 1}')
    [row] = (await world.list("auditor")).letters
    told = await world.show(row.id, "auditor")
    assert told.letter == row and (told.content, told.body, told.headers, row.reason) == (False, "", {}, "")
    assert row.code == "malformed_body" and row.body_bytes == 13 and "secret" not in told.model_dump_json()
    refused = await world.dismiss(row.id, "auditor")
    assert refused.failure is not None and refused.failure.code == "forbidden"


@pytest.mark.parametrize(("role", "tenant"), [*((one, "acme") for one in ROLES), ("operator", "other")])
async def test_others_are_told_nothing(role: str, tenant: str) -> None:
    world, claim = World(), who(role, tenant)
    await world.bury("t1")
    bodies = (DeadLettersRequested(requester=claim), DeadLetterRequested(requester=claim, letter="abcd"))
    replies = [
        await world.book.list_letters(world.asked(bodies[0], "acme")),
        await world.book.show_letter(world.asked(bodies[1], "acme")),
        await world.book.dismiss_letter(
            world.asked(DismissalRequested(requester=claim, letter="abcd", reason="x"), "acme")
        ),
    ]
    assert [one.failure and one.failure.code for one in replies] == ["forbidden"] * 3


async def test_the_content_is_shown_without_grants_vouchers_and_keys_and_no_more_than_its_bound() -> None:
    world = World()
    asked = TaskRequested(objective="use sk-abcdefgh12345678", voucher="signed.by.signer")
    many = {f"x-{number:03}": "v" * 1_000 for number in range(bounds.MAX_LETTER_HEADERS)}
    await world.bury("t1", asked.encode(), headers=HEADERS | {"ce-type": asked.ce_type(), "x-key": "Bearer abc"})
    await world.bury("t2", b"\xff" + b"\x01" * 2 * bounds.MAX_LETTER_CHARS, headers=HEADERS | many)
    first, second = [await world.show(one.id) for one in (await world.list()).letters]
    said = first.model_dump_json()
    assert first.content and "objective" in first.body and first.headers["ce-id"] == "1"
    assert not [one for one in ("signed.by.signer", "a.b.c", "sk-abcdefgh12345678", "Bearer abc") if one in said]
    assert len(second.body) == bounds.MAX_LETTER_CHARS and second.left_out_chars == 1 + bounds.MAX_LETTER_CHARS
    assert len(second.headers) == bounds.MAX_LETTER_HEADERS and second.left_out_headers == 2
    assert len(second.encode()) <= bounds.MAX_MESSAGE_BYTES and second.body.startswith("\ufffd\x01")


async def test_pages_lead_on_and_miss_nothing_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_LETTERS_READ", 3)
    world = World()
    for number in range(10):
        await world.bury(f"t{number}")
    rows = (await world.list(limit=100)).letters
    assert [one.task for one in rows] == ["t0", "t1", "t2"], "as many as are read at a time"
    for one in rows[:2]:
        assert (await world.dismiss(one.id, key=one.id)).failure is None

    async def pages(**wish: Any) -> list[list[str]]:
        found, after = [], 0
        while True:
            page = await world.list(after=after, **wish)
            found.append([one.task for one in page.letters])
            if not (after := page.next):
                return found

    assert await pages(limit=2) == [["t2"], ["t3", "t4"], ["t5", "t6"], ["t7", "t8"], ["t9"]]
    assert [task for page in await pages(limit=2, everything=True) for task in page] == [
        f"t{number}" for number in range(10)
    ]


async def test_a_dismissal_counts_once_for_its_letter_alone_and_bears_the_persons_name() -> None:
    world = World()
    await world.bury("t1", b"1")
    await world.bury("t1", b"2", service="budget")
    first, second = (await world.list()).letters
    done = (await world.dismiss(first.id[:8], reason="a test sent it")).letter
    assert done is not None and done.id == first.id
    assert [(one.what, one.by, one.reason) for one in done.marks] == [("dismissed", "acme/ann", "a test sent it")]
    again = await world.dismiss(first.id[:8], reason="a test sent it")
    assert again.letter == done, "the same request, whose answer was lost"
    other = await world.dismiss(first.id[:8], reason="for fun")
    late = await world.dismiss(first.id, reason="me too", key="2")
    assert [one.failure and one.failure.code for one in (other, late)] == ["idempotency_reused", "dismissed"]
    assert [one.id for one in (await world.list()).letters] == [second.id]
    told = await dead_letters.read_letters(world.operator)
    assert [(one.standing, len(one.marks)) for one in told] == [("dismissed", 1), ("open", 0)]
    assert await world.open_by_service() == {"worker": 0, "budget": 1}, "budget's mark is no letter of budget's"
    await dead_letters.mark_letter(world.operator, told[1], dead_letters.DeadLetterMark("dismissed", "root", "mine"))
    assert (await world.list()).letters == () and await world.open_by_service() == {"worker": 0, "budget": 0}


async def test_whose_mark_it_is_says_the_broker() -> None:
    world = World()
    await world.bury("t1")
    [one] = await dead_letters.read_letters(world.operator)
    body, headers = dead_letters.mark_content(one, dead_letters.DeadLetterMark("dismissed", "nobody", "x"))
    place = dead_letters.mark_place("worker", one)
    assert not dead_letters.is_mark(place) and dead_letters.is_mark(dead_letters.mark_place("budget", one))
    await MemoryBus(world.broker, "worker").publish(place, body, headers, "forged")
    assert len((await world.list()).letters) == 1
