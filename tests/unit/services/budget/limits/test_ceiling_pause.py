"""A task at its ceiling is halted once, whoever else halts it; with more it goes on, whoever sees that first."""

from dataclasses import replace

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.halts import operator
from bulkhead.runtime.halts.operator import OPERATOR, HaltRequest
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_COST_USD_MICROS, MAX_TOP_UPS
from bulkhead_contracts.budget import Limit, LimitsChanged, LimitsRequested, TopUp, TopUpReplied, TopUpRequested
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim, TaskEnded
from bulkhead_services.budget.ledger.accounts import raise_ceiling
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import NO_LIMIT, LedgerState, MetCeiling
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.ceiling_pause import CeilingPause
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry

NOW, TENANT, TASK = 1_795_231_204_272, "demo", "t1"
OWN = MetCeiling(f"task:{TENANT}:{TASK}", "cost_usd_micros", spent=80, reserved=0, asked=30, limit=100)
DAY = MetCeiling(f"day:{TENANT}:2026-11-21", "cost_usd_micros", spent=80, reserved=0, asked=30, limit=100)


class Lagging(MemoryBroker):
    """One whose followers may be behind with the journal alone."""

    behind: int | None = None

    def horizon(self, stream: str) -> int | None:
        return self.behind if stream == subjects.inbox_stream("journal") else None


class World:
    """Two replicas of budget over one broker."""

    def __init__(self, store) -> None:
        self.broker, self.now = Lagging.for_mesh(), NOW
        self.bus = MemoryBus(self.broker, "budget")
        self.publisher = Publisher("budget", self.bus, b"b" * 32, lambda: self.now)
        self.books = [
            TenantLimitsRegistry(self.bus, self.publisher, store, lambda: self.now, lambda why: None) for _ in range(2)
        ]
        self.parkings = [
            CeilingPause(self.bus, self.publisher, one, lambda: self.now, parks=True) for one in self.books
        ]
        for book, parking in zip(self.books, self.parkings, strict=True):
            book.on_change = parking.lift_for_target

    async def stands(self) -> Halt | None:
        found = await self.bus.last(subjects.CONTROL_STREAM, subjects.halt_key("task", TENANT, TASK))
        return Halt.model_validate_json(found.body) if found is not None else None

    async def switches(self, *, active: bool) -> Halt | Failure:
        made = HaltRequest("task", TENANT, TASK, active, "look", f"{OPERATOR}ada", self.now)
        return await operator.switch_halt(self.bus, self.publisher, made)

    async def tops_up(self, name: str, replica: int = 0, task: str = TASK, **units: int) -> TopUpReplied:
        return await self.books[replica].answer_top_up(asks(name, task, **units))

    def stored(self) -> int:
        """How many facts tell of limits."""
        return len(
            self.broker.get_stream(subjects.inbox_stream("journal")).read("mesh.budget.journal.*.limits.*.*", 0, 1000)
        )


def wish(name: str, target: str, tokens: int) -> ReceivedMessage:
    """An operator sets a limit."""
    ann = RequesterClaim(tenant=TENANT, person="ann", role="operator", via="api_key")
    body = LimitsRequested(requester=ann, target=target, limit=Limit(tokens=tokens))
    head = Envelope(id=name, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return ReceivedMessage(head, body, TENANT, "limits", "gateway", 0, NOW, 1)


def asks(name: str, task: str = TASK, *, role: str = "operator", tenant: str = TENANT, **units: int) -> ReceivedMessage:
    ann = RequesterClaim(tenant=tenant, person="ann", role=role, via="api_key")
    body = TopUpRequested(requester=ann, task=task, add=Limit(**units), until_unix_ms=NOW + 60_000, reason="worth it")
    head = Envelope(id=name, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return ReceivedMessage(head, body, TENANT, task, "gateway", 0, NOW, 1)


@pytest.fixture
async def world() -> World:
    return await made()


async def made() -> World:
    """Over a ledger that stands."""
    store = MemoryStore(lease_ms=60_000)
    server = await store.connect()
    assert await store.lock_rebuild("0", 1_000)
    await store.write_ledger("0", LedgerState(60_000), NOW, _go_on)
    assert await store.activate_ledger("0", server, {})
    return World(store)


async def _go_on() -> None: ...


async def test_it_is_halted_once_and_goes_on_when_it_is_topped_up(world: World) -> None:
    one, other = world.parkings
    first = await one.park_task(TENANT, TASK, OWN)
    assert await other.park_task(TENANT, TASK, OWN) == first == await world.stands()
    assert first.active and first.pauses and first.by == "budget" and first.code == "budget_exceeded"
    assert f"bulkhead topup {TASK} --usd 0.000010" in first.reason
    reply = await world.tops_up("a", cost_usd_micros=50)
    assert reply.resumed and reply.added == Limit(cost_usd_micros=50) and reply.failure is None
    lifted = await world.stands()
    assert not lifted.active and lifted.at_unix_ms > first.at_unix_ms
    again = await world.tops_up("a", replica=1, cost_usd_micros=50)
    assert again.added == Limit(cost_usd_micros=50), "the same request counts once, whoever answers it"
    more = await world.tops_up("b", cost_usd_micros=5, tokens=7)
    await world.books[0].answer_limits(wish("c", "month", 20))
    assert more.added == Limit(cost_usd_micros=55, tokens=7) and not more.resumed
    late = await world.tops_up("b", replica=1, cost_usd_micros=5, tokens=7)
    assert late.added == more.added and world.stored() == 3


async def test_another_amount_or_reason_under_the_same_key_is_refused_and_changes_nothing(world: World) -> None:
    first = await world.tops_up("a", model_calls=7)
    await world.tops_up("b", tokens=1)
    other = asks("a", model_calls=7)
    for request_ in (
        asks("a", model_calls=9),
        asks("a", model_calls=7, tokens=1),
        replace(other, body=other.body.model_copy(update={"reason": "another"})),
    ):
        for book in world.books:
            reply = await book.answer_top_up(request_)
            assert reply.failure is not None and reply.failure.code == "idempotency_reused" and reply.failure.hint
    later = replace(other, body=other.body.model_copy(update={"until_unix_ms": NOW + 61_000}))
    again = await world.books[1].answer_top_up(later)
    assert first.failure is None and again.added == Limit(model_calls=7, tokens=1), "the gateway's clock is no content"
    assert world.stored() == 2


async def test_a_repeat_of_what_was_stored_before_contents_were_remembered_counts_once(world: World) -> None:
    old = TopUp(task=TASK, add=Limit(tokens=5), until_unix_ms=NOW + 60_000, changes=("a",))
    fact = LimitsChanged(
        tenant=TENANT,
        revision=1,
        target=f"task/{TASK}",
        old=Limit(),
        new=old.add,
        by="ann",
        changed_unix_ms=NOW,
        change="a",
        topped_up=True,
        top_ups=(old,),
    )
    await Publisher("budget", world.bus, b"b" * 32, lambda: NOW).send(
        "journal", fact, tenant="limits", task=TENANT, index="old"
    )
    assert (await world.tops_up("a", tokens=5)).added == Limit(tokens=5) and world.stored() == 1
    assert (await world.tops_up("b", tokens=2)).added == Limit(tokens=7)


async def test_whoever_changes_limits_and_whoever_halts_one_of_both_sees_the_other(world: World) -> None:
    """The limit is raised after the ledger said no by the old one, and before the halt stands."""
    await world.books[0].last_read_limits(TENANT)
    assert not (await world.tops_up("a", replica=1, cost_usd_micros=50)).resumed
    halt = await world.parkings[0].park_task(TENANT, TASK, OWN)
    assert halt is not None and not (await world.stands()).active, "nobody else would have come by"


async def test_what_a_lagging_reader_missed_is_seen_by_the_next_look(world: World) -> None:
    await world.books[0].last_read_limits(TENANT)
    await world.tops_up("a", replica=1, cost_usd_micros=50)
    world.broker.behind = 0
    await world.parkings[0].park_task(TENANT, TASK, OWN, NOW + 60_000)
    assert (await world.stands()).active
    world.broker.behind = None
    await world.parkings[0].lift_due()
    assert not (await world.stands()).active


async def test_a_new_day_lets_it_go_on_and_the_end_of_a_task_does_not(world: World) -> None:
    parking = world.parkings[0]
    for ceiling, lets_go in ((DAY, True), (OWN, False)):
        await parking.park_task(TENANT, TASK, ceiling, 0 if lets_go else NOW + 60_000)
        await parking.lift_due()
        assert (await world.stands()).active, "it is the same day"
        world.now += 24 * 3_600_000
        await parking.lift_due()
        assert (await world.stands()).active is not lets_go
    assert not parking._known


async def test_who_halted_it_may_be_killed_and_a_new_day_lets_it_go_on_all_the_same(world: World) -> None:
    one, other = world.parkings
    await one.park_task(TENANT, TASK, DAY)
    world.parkings = [other]  # The first one is no more.
    await other.lift_due()
    assert (await world.stands()).active, "the day is not over"
    world.now += 86_400_000
    await other.lift_due()
    assert not (await world.stands()).active
    await other.park_task(TENANT, TASK, OWN)
    begun = CeilingPause(world.bus, world.publisher, world.books[0], lambda: world.now, parks=True)
    world.now += 86_400_000
    await begun.lift_due()
    assert (await world.stands()).active, "no day changes its own ceiling"


@pytest.mark.parametrize(
    ("scope", "passes"),
    [
        ("task:demo:t1", False),
        ("step:demo:t1/s1", False),
        ("day:demo:2026-11-21", True),
        ("month:demo:2026-11", True),
        ("mesh:-:2026-11-21", True),
        ("agent:demo:worker.step:2026-11-21", True),
        ("user:demo:ann (UTC):2026-11-21", True),
        ("task:demo:UTC", False),
    ],
)
def test_the_reason_tells_whether_a_new_day_may_change_it(scope: str, passes: bool) -> None:
    assert messages.ends_with_period(messages.parked_text(DAY._replace(scope=scope), TASK)) is passes


async def test_who_halted_it_may_be_killed_before_it_sees_that_the_limits_were_changed(world: World) -> None:
    one, other = world.parkings
    world.broker.behind = world.broker.get_stream(subjects.inbox_stream("journal")).last_sequence
    await world.books[1].answer_limits(wish("w", "day", 500))
    await one.park_task(TENANT, TASK, DAY)
    assert (await world.stands()).active
    world.broker.behind = None
    await other.lift_due()
    assert not (await world.stands()).active


async def test_what_a_person_halted_is_neither_overwritten_nor_let_go(world: World) -> None:
    parking = world.parkings[0]
    by_hand = await world.switches(active=True)
    assert await parking.park_task(TENANT, TASK, OWN) == by_hand == await world.stands()
    assert not (await world.tops_up("a", cost_usd_micros=50)).resumed and (await world.stands()).active
    await world.switches(active=False)
    halt = await parking.park_task(TENANT, TASK, OWN)
    assert halt.by == "budget" and (await world.stands()).active
    refused = await world.switches(active=False)
    assert isinstance(refused, Failure) and refused.code == "at_its_ceiling" and "topup" in refused.hint


async def test_what_was_ended_is_not_halted_anew(world: World) -> None:
    over = Halt(scope="task", tenant=TENANT, name=TASK, code="cancelled", reason="enough", by="planner")
    await world.bus.publish(subjects.halt_key("task", TENANT, TASK), over.model_dump_json().encode(), {}, "over")
    assert await world.parkings[0].park_task(TENANT, TASK, OWN) is None
    assert not await world.parkings[0].lift_halt(TENANT, TASK, "why not") and await world.stands() == over


@pytest.mark.parametrize("here", [0, 1])
@pytest.mark.parametrize(
    ("scope", "others", "mine"),
    [
        (OWN.scope, ("day", "step", "task/t9", "user", "feature/task"), ("task", f"task/{TASK}")),
        (f"step:{TENANT}:{TASK}/s1", ("task", "day", "user/s1"), ("step",)),
        (DAY.scope, ("task", "task/t9", "month", "user/day"), ("day",)),
        (f"month:{TENANT}:2026-11", ("day", "task/t9"), ("month",)),
        (f"user:{TENANT}:ann:2026-11-21", ("day", "agent/ann", "user/bob", "user/an"), ("user", "user/ann")),
        (
            f"agent:{TENANT}:planner.draft:2026-11-21",
            ("user", "workflow", "feature", "agent/worker"),
            ("agent", "agent/planner", "agent/planner.draft"),
        ),
        (
            f"feature:{TENANT}:a.b:2026-11-21",
            ("task", "user/a.b", "feature/c", "feature/a.bc"),
            ("feature", "feature/a.b"),
        ),
        ("mesh:-:2026-11-21", ("day", "task"), ()),
    ],
)
async def test_limits_of_another_account_leave_it_halted_and_its_own_do_not(
    world: World, here: int, scope: str, others: tuple[str, ...], mine: tuple[str, ...]
) -> None:
    """Whichever replica is asked: who halted it looks by itself, too."""
    ceiling = OWN._replace(scope=scope)
    for each in world.parkings:
        await each.lift_due()
    await world.parkings[0].park_task(TENANT, TASK, ceiling)
    first = await world.stands()
    for number, target in enumerate(others):
        assert (await world.books[here].answer_limits(wish(f"other{number}", target, 20))).failure is None
        assert (await world.tops_up(f"another{number}", here, task="t7", tokens=1)).failure is None
        for each in world.parkings:
            await each.lift_due()
        assert await world.stands() == first, f"{target} is none of its business"
    for number, target in enumerate(mine):
        await world.books[here].answer_limits(wish(f"mine{number}", target, 30))
        lifted = await world.stands()
        assert not lifted.active and lifted.reason == f"ann changed {target}"
        await world.parkings[here].park_task(TENANT, TASK, ceiling)
        assert (await world.stands()).active


@pytest.mark.parametrize("target", ["task", f"task/{TASK}", "day", "user"])
async def test_a_lagging_reader_lets_go_by_the_next_look_whom_the_change_concerns(world: World, target: str) -> None:
    await world.parkings[0].lift_due()
    await world.books[0].last_read_limits(TENANT)
    await world.books[1].answer_limits(wish("w", target, 500))
    world.broker.behind = 0
    await world.parkings[0].park_task(TENANT, TASK, OWN, NOW + 60_000)
    world.broker.behind = None
    await world.parkings[0].lift_due()
    assert (await world.stands()).active is not target.startswith("task")


def test_of_a_reason_in_other_words_any_limit_may_be_the_cause() -> None:
    assert messages.may_concern_target("the money is gone", "feature/x") and messages.may_concern_target(
        "the money is gone", "day"
    )


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (asks("a", role="submitter", tokens=1), "forbidden"),
        (asks("a", role="auditor", tokens=1), "forbidden"),
        (asks("a", tenant="bolt", tokens=1), "forbidden"),
        (asks("a"), "adds_nothing"),
        (asks("a", tokens=0), "adds_nothing"),
    ],
)
async def test_who_may_not_or_adds_nothing_is_told(world: World, request_: ReceivedMessage, code: str) -> None:
    reply = await world.books[0].answer_top_up(request_)
    assert reply.failure is not None and reply.failure.code == code and reply.failure.hint
    assert world.stored() == 0


async def test_top_ups_are_bounded_and_forgotten_with_their_tasks(world: World) -> None:
    book = world.books[0]
    for number in range(MAX_TOP_UPS):
        assert (await book.answer_top_up(asks(f"n{number}", f"t{number}", tokens=1))).failure is None
    refused = await book.answer_top_up(asks("one too many", "tx", tokens=1))
    assert refused.failure.code == "too_many_limits"
    far = await book.answer_top_up(asks("far", "t3", cost_usd_micros=MAX_COST_USD_MICROS))
    assert far.failure is None
    assert (await book.answer_top_up(asks("too far", "t3", cost_usd_micros=1))).failure.code == "too_much"
    assert len((await book.last_read_limits(TENANT)).limits) == MAX_TOP_UPS


def test_a_top_up_raises_what_there_is_and_makes_no_ceiling_where_there_is_none() -> None:
    ceiling = NO_LIMIT._replace(tokens=100)
    assert raise_ceiling(ceiling, Limit(tokens=50, model_calls=3)) == ceiling._replace(tokens=150)
    assert raise_ceiling(ceiling, None) == ceiling


@pytest.mark.parametrize("replica", [0, 1], ids=["the one that halted it", "one that began later"])
async def test_a_halt_that_came_before_the_end_was_known_is_lifted_and_an_operators_stands(
    world: World, replica: int
) -> None:
    async def end_task(task: str) -> None:
        ended = TaskEnded(status="succeeded", ended_unix_ms=NOW)
        planner = Publisher("planner", MemoryBus(world.broker, "planner"), b"p" * 32, lambda: world.now)
        await planner.send("gateway", ended, tenant=TENANT, task=task, cause=task)

    parking = world.parkings[0]
    await parking.hold_task(TENANT, TASK, "68 times as much", "r1")
    await parking.hold_task(TENANT, "goes-on", "68 times as much", "r1")
    await world.parkings[replica].lift_due()
    assert (await world.stands()).active
    await end_task(TASK)
    world.now += 24 * 3600 * 1000 if replica else 1_000
    await world.parkings[replica].lift_due()
    lifted = await world.stands()
    assert not lifted.active and lifted.reason == "the task has ended"
    assert [halt.name for halt in await operator.standing_halts(world.bus)] == ["goes-on"]
    await world.switches(active=True)
    world.now += 24 * 3600 * 1000
    await world.parkings[replica].lift_due()
    assert (await world.stands()).active
