"""What was spent by name: every settlement is in one sum, whatever came twice, late or in another order."""

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.bus.memory.broker import MachineClock
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Amount, Reserved, ScopeLimit, Settled, SpendReplied, SpendRequested, Spent
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RequesterClaim, TaskEnded
from bulkhead_services.budget.ledger.model import UnitSums
from bulkhead_services.budget.queries import spending
from bulkhead_services.budget.queries.calls import list_calls
from bulkhead_services.budget.queries.spending import SpendQuery, SpendTally, build_report, count_message
from bulkhead_services.budget.queries.turns import TURN

NOW, HOUR_MS = 1_795_231_204_272, 3_600_000
BYS = ("agent", "step", "workflow", "feature", "user", "tenant", "model", "tool", "task")


def fact(
    number: int,
    agent: str = "worker.writer",
    task: str = "t1",
    at: int = NOW,
    service: str = "model_gateway",
    tenant: str = "acme",
    ask: int = 100,
    call: str = "c",
) -> ReceivedMessage:
    """A reservation as the journal has it."""
    rows = [
        f"task:{tenant}:{task}",
        *(
            f"{kind}:{tenant}:{name}:2026-11-21"
            for kind, name in (("agent", agent), ("workflow", "w"), ("feature", ""), ("user", "ann: the first"))
            if name
        ),
    ]
    scopes = tuple(ScopeLimit(scope=one, cost_usd_micros=9, tokens=9) for one in rows)
    body = Reserved(
        reservation_id=f"r{number}",
        call_id=call,
        step_id="s1",
        service=service,
        resource="m1",
        amount=Amount(tokens=ask, cost_usd_micros=ask, model_calls=1),
        scopes=scopes[:2],
        more_scopes=scopes[2:],
        reserved_unix_ms=at,
    )
    return wrapped("budget", "journal", tenant, task, body)


def settled(
    number: int,
    usage: int,
    task: str = "t1",
    estimated: bool = False,
    service: str = "model_gateway",
    tenant: str = "acme",
) -> ReceivedMessage:
    body = Settled(
        reservation_id=f"r{number}",
        call_id="c",
        estimated=estimated,
        wall_ms=7,
        usage=Usage(input_tokens=usage, output_tokens=1, cost_usd_micros=2 * usage, model_calls=1),
    )
    return wrapped(service, "budget", tenant, task, body)


def wrapped(sender: str, to: str, tenant: str, task: str, body) -> ReceivedMessage:  # type: ignore[no-untyped-def]
    return ReceivedMessage(None, body, tenant, task, sender, 1, NOW, receiver=to)  # type: ignore[arg-type]


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["", "worker.writer", "worker:odd", "planner"]),
        st.sampled_from(["t1", "t2"]),
        st.integers(0, 10**6),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["model_gateway", "rag"]),
    ),
    max_size=30,
)
"""Agent, task, usage, settled, estimated, admitted before, by whom."""


@given(calls=CALLS, by=st.sampled_from(BYS), top=st.integers(1, 4), seed=st.randoms(use_true_random=False))
async def test_sums_are_those_of_the_settlements(calls: list, by: str, top: int, seed: random.Random) -> None:
    messages: list[ReceivedMessage] = []
    wanted = {"tokens": 0, "cost": 0, "held": 0, "late": 0}
    for number, (agent, task, usage, done, estimated, before, service) in enumerate(calls):
        messages.append(fact(number, agent, task, NOW - HOUR_MS * before, service))
        if done:
            messages.append(settled(number, usage, task, estimated, service))
            wanted["late" if before else "tokens"] += 100 if estimated else usage + 1
            wanted["cost"] += 0 if before else 100 if estimated else 2 * usage
        elif not before:
            wanted["held"] += 100
    messages += seed.sample(messages, len(messages) // 2)
    seed.shuffle(messages)
    tally = SpendTally()
    for message in messages:
        count_message(tally, message, by)
    found = await build_report(tally, by, NOW, NOW + HOUR_MS, top)
    SpendReplied.model_validate_json(found.encode())
    total = found.total
    assert (total.spent.tokens, total.spent.cost_usd_micros, total.held.tokens, found.late.tokens) == (
        wanted["tokens"],
        wanted["cost"],
        wanted["held"],
        wanted["late"],
    )
    assert len(found.rows) <= top
    for unit in Spent.model_fields:
        for kind in ("spent", "held"):
            rows = sum(getattr(getattr(one, kind), unit) for one in (*found.rows, found.rest))
            assert rows == getattr(getattr(total, kind), unit)


@pytest.mark.parametrize(
    ("by", "name"),
    [
        ("agent", "worker.writer"),
        ("step", "t1/s1"),
        ("workflow", "w"),
        ("feature", ""),
        ("user", "ann: the first"),
        ("tenant", "acme"),
        ("model", "m1"),
        ("task", "t1"),
    ],
)
async def test_a_call_counts_under_its_name(by: str, name: str) -> None:
    tally = SpendTally()
    count_message(tally, fact(1), by)
    count_message(tally, settled(1, 5), by)
    (row,) = (await build_report(tally, by, NOW, NOW, 9)).rows
    assert row.name == name and (row.spent.calls, row.spent.input_tokens, row.spent.output_tokens) == (1, 5, 1)


async def test_what_nobody_settled_within_its_lease_is_spent_and_held_no_longer() -> None:
    tally = SpendTally()
    for number, at in enumerate((NOW, NOW + HOUR_MS)):
        count_message(tally, fact(number, at=at), "task")
    total = (await build_report(tally, "task", NOW, NOW + HOUR_MS, 9, lapsed_unix_ms=NOW)).total
    assert (total.spent.calls, total.spent.estimated, total.held.calls) == (1, 1, 1)
    assert total.spent.estimated_tokens == total.spent.tokens == total.held.tokens > 0


async def test_estimates_and_failed_attempts_stand_apart() -> None:
    tally, usage = SpendTally(), Usage(input_tokens=30, output_tokens=10, cost_usd_micros=70, model_calls=1)
    bodies = [
        Settled(reservation_id="r0", call_id="c", usage=usage, wall_ms=5),
        Settled(reservation_id="r1", call_id="c", usage=usage.as_estimate(), wall_ms=7, failed="truncated_stream"),
        Settled(reservation_id="r2", call_id="c", usage=Usage(), wall_ms=9, failed="rate_limited"),
        Settled(reservation_id="r3", call_id="c", usage=Usage(), estimated=True),
    ]
    for number, body in enumerate(bodies):
        count_message(tally, fact(number, at=NOW + 8_000 * max(0, number - 2)), "model")
        count_message(tally, wrapped("model_gateway", "budget", "acme", "t1", body), "model")
    (row,) = (await build_report(tally, "model", NOW, NOW, 9)).rows
    found = row.spent
    assert (found.calls, found.cost_usd_micros, found.tokens) == (4, 70 + 70 + 100, 40 + 40 + 100)
    assert (found.estimated, found.estimated_usd_micros, found.estimated_tokens) == (2, 70 + 100, 40 + 100)
    assert (found.failed_calls, found.failed_usd_micros, found.failed_ms) == (2, 70, 7 + 8_000), (
        "with the pause before the last"
    )


async def test_a_row_has_the_percentiles_of_what_its_settled_calls_took() -> None:
    tally = SpendTally()
    for number, wall_ms in enumerate((*range(10, 200, 10), 9_000, 0)):
        body = Settled(reservation_id=f"r{number}", call_id=f"c{number}", usage=Usage(tool_calls=1), wall_ms=wall_ms)
        count_message(tally, fact(number, service="tool_executor", call=f"c{number}"), "tool")
        count_message(tally, wrapped("tool_executor", "budget", "acme", "t1", body), "tool")
    (row,) = (await build_report(tally, "tool", NOW, NOW, 9)).rows
    assert (row.name, row.p50_ms, row.p95_ms) == ("m1", 100, 190)
    assert (await build_report(tally, "model", NOW, NOW, 9)).rest.p50_ms == 0


async def test_a_call_that_failed_three_times_takes_the_time_of_all_three_and_a_halt_is_nobodys() -> None:
    tally = SpendTally()
    for number, (later_ms, failed) in enumerate(((0, "http_status"), (250, "http_status"), (627, "http_status"))):
        body = Settled(reservation_id=f"r{number}", call_id="c", usage=Usage(tool_calls=1), wall_ms=5, failed=failed)
        count_message(tally, fact(number, at=NOW + later_ms, service="tool_executor"), "tool")
        count_message(tally, wrapped("tool_executor", "budget", "acme", "t1", body), "tool")
    (row,) = (await build_report(tally, "tool", NOW, NOW, 9)).rows
    assert (row.spent.calls, row.spent.failed_calls, row.p50_ms, row.p95_ms) == (3, 3, 632, 632)
    cut = Settled(reservation_id="r3", call_id="c", usage=Usage(), wall_ms=9, failed=spending.HALTED)
    count_message(tally, fact(3, at=NOW - HOUR_MS, service="tool_executor"), "tool")
    count_message(tally, wrapped("tool_executor", "budget", "acme", "t1", cut), "tool")
    (row,) = (await build_report(tally, "tool", NOW - 2 * HOUR_MS, NOW, 9)).rows
    assert row.p95_ms == 632


async def test_classes_of_usage_are_summed_apart_and_left_out_where_there_are_none() -> None:
    tally = SpendTally()
    for number in range(2):
        usage = Usage(
            input_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=5, output_tokens=9, reasoning_tokens=7
        )
        body = Settled(reservation_id=f"r{number}", call_id="c", usage=usage)
        count_message(tally, fact(number), "model")
        count_message(tally, wrapped("model_gateway", "budget", "acme", "t1", body), "model")
    shown = (await build_report(tally, "model", NOW, NOW, 9)).rows[0].spent.model_dump()
    assert (shown["cache_write_tokens"], shown["cache_write_1h_tokens"], shown["reasoning_tokens"]) == (40, 10, 14)
    assert "input_audio_tokens" not in shown


async def test_a_tool_is_no_model_and_nobody_settles_the_call_of_another() -> None:
    tally = SpendTally()
    count_message(tally, fact(1, service="tool_executor"), "model")
    count_message(tally, settled(1, 5), "model")
    found = await build_report(tally, "model", NOW, NOW, 9)
    assert [(one.name, one.spent.calls, one.held.calls) for one in found.rows] == [("", 0, 1)] and found.late.calls == 1


async def test_what_may_have_been_purged_is_said() -> None:
    tally, kept = SpendTally(), NOW - spending.TASK_KEPT_MS
    assert (await build_report(tally, "agent", kept, NOW, 9)).kept_unix_ms == 0
    assert (await build_report(tally, "agent", kept - 1, NOW, 9)).kept_unix_ms == kept


class Told(MachineClock):
    """Tells the time that the test says; what it waits for ends by the machine's."""

    def __init__(self, world: "Streams") -> None:
        super().__init__()
        self._world = world

    def now_ms(self) -> int:
        return self._world.now

    def call_at(self, at_ms: int, call: Callable[[], None]) -> Callable[[], None]:
        return super().call_at(super().now_ms() + at_ms - self._world.now, call)


class Streams:
    """Facts and settlements over the in-memory bus, at times that the test says."""

    def __init__(self) -> None:
        self.now, self.said = NOW, 0
        self.broker = MemoryBroker.for_mesh(clock=Told(self))
        self.bus = MemoryBus(self.broker, "budget")

    async def say(self, message: ReceivedMessage) -> None:
        """Every second settlement in a reply."""
        sender, receiver, body = message.sender, message.receiver, message.body
        index = body.reservation_id  # type: ignore[attr-defined]
        self.said += 1
        if isinstance(body, Settled) and self.said % 4 < 2:
            receiver, body = "worker", CallDeferred(call_id="c", after_ms=1, settled=(body,))
        publisher = Publisher(sender, MemoryBus(self.broker, sender), b"k", lambda: self.now)
        await publisher.send(receiver, body, tenant=message.tenant, task=message.task, cause="c", index=index)

    async def ask(
        self, since_s: int = 3600, most: int = 100, role: str = "operator", of: str = "acme", tasks: Sequence[str] = ()
    ) -> SpendReplied:
        claim = RequesterClaim(tenant=of, person="eve", role=role, via="api_key")  # type: ignore[arg-type]
        body = SpendRequested(requester=claim, by="task", since_s=since_s, tasks=tuple(tasks))
        asked = ReceivedMessage(None, body, "acme", "limits", "gateway", 0, self.now, 1)  # type: ignore[arg-type]
        return await SpendQuery(self.bus, lambda: self.now, max_messages=most).answer_spend(asked)


async def test_only_the_asked_time_and_only_the_own_tenant_is_read() -> None:
    world = Streams()
    for number in range(40):
        world.now = NOW + number * 10 * 60_000
        tenant = "bolt" if number % 4 == 0 else "acme"
        await world.say(fact(number, task=f"t{number}", at=world.now, tenant=tenant))
        await world.say(settled(number, number, task=f"t{number}", tenant=tenant))
    found = await world.ask()
    # The last hour is that of calls 33 to 39; call 36 is another tenant's.
    assert sorted(one.name for one in found.rows) == [f"t{number}" for number in (33, 34, 35, 37, 38, 39)]
    assert found.total.spent.input_tokens == 33 + 34 + 35 + 37 + 38 + 39 and found.late == Spent()
    assert (await world.ask(since_s=10 * 3600)).total.spent.calls == 30
    # What is admitted before and settles now is in no row, and shown.
    await world.say(fact(90, at=NOW))
    await world.say(settled(90, 4))
    assert (await world.ask()).late.input_tokens == 4


async def test_a_call_that_nobody_settled_before_its_task_ended_is_held_no_longer() -> None:
    world = Streams()
    for task in ("ended", "living"):
        await world.say(fact(1, task=task))
        await world.say(fact(2, task=task))
        await world.say(settled(2, 5, task=task))
    planner = Publisher("planner", MemoryBus(world.broker, "planner"), b"k", lambda: world.now)
    body = TaskEnded(status="succeeded", ended_unix_ms=NOW)
    await planner.send("gateway", body, tenant="acme", task="ended", cause="c", index="ended")
    assert (await world.ask()).total.held.calls == 2, "its settlement may be on its way"
    world.now += 2 * 60_000
    rows = {row.name: (row.spent.calls, row.spent.estimated, row.held.calls) for row in (await world.ask()).rows}
    assert rows == {"ended": (2, 1, 0), "living": (1, 0, 1)}
    # The late figure is the one that counts.
    await world.say(settled(1, 7, task="ended"))
    assert (await world.ask()).total.spent.estimated == 0


async def test_of_named_tasks_alone_and_of_no_other_tenant_is_told() -> None:
    world = Streams()
    for number in range(9):
        await world.say(fact(number, task=f"t{number}", tenant="bolt" if number == 1 else "acme"))
        await world.say(settled(number, number, task=f"t{number}", tenant="bolt" if number == 1 else "acme"))
    # Those of others are not among the messages that an answer is made of.
    found = await world.ask(tasks=("t1", "t5", "t8", "unknown"), most=4)
    assert {one.name: one.spent.input_tokens for one in found.rows} == {"t5": 5, "t8": 8}
    assert found.total.spent.input_tokens == 13 and found.rest_rows == 0


async def test_more_than_one_answer_is_made_of_is_refused_in_words() -> None:
    world = Streams()
    for number in range(9):
        await world.say(fact(number))
    found = await world.ask(most=8)
    assert found.failure is not None and found.failure.code == "too_much" and "shorter" in found.failure.hint


async def test_a_tenant_that_asks_much_keeps_no_other_from_its_answer() -> None:
    world, stands, go = Streams(), asyncio.Event(), asyncio.Event()

    class Slow(MemoryBus):
        async def last(self, stream: str, subject: str) -> StoredMessage | None:
            if ".acme." in subject:
                stands.set()
                await go.wait()
            return await super().last(stream, subject)

    book = SpendQuery(Slow(world.broker, "budget"), lambda: world.now)

    def ask(tenant: str) -> asyncio.Task[SpendReplied]:
        claim = RequesterClaim(tenant=tenant, person="eve", role="operator", via="api_key")
        body = SpendRequested(requester=claim, by="task", since_s=3600)
        asked = ReceivedMessage(None, body, tenant, "limits", "gateway", 0, world.now, 1)  # type: ignore[arg-type]
        return asyncio.create_task(book.answer_spend(asked))

    many = [ask("acme") for _ in range(6)]
    await stands.wait()
    assert (await ask("bolt")).failure is None
    go.set()
    codes = [one.failure.code if one.failure else "" for one in await asyncio.gather(*many)]
    assert codes == ["", "", "", "", "", "busy"]


@pytest.mark.parametrize(
    ("role", "of", "may"),
    [
        ("operator", "acme", True),
        ("auditor", "acme", True),
        ("submitter", "acme", False),
        ("approver", "acme", False),
        ("operator", "bolt", False),
    ],
)
async def test_budget_judges_who_may_see_it(role: str, of: str, may: bool) -> None:
    failure = (await Streams().ask(role=role, of=of)).failure
    assert (failure is None) is may and (failure is None or failure.code == "forbidden")


async def test_tokens_from_providers_caches_are_summed():
    tally = SpendTally()
    for number in (1, 2):
        usage = Usage(input_tokens=100, cached_input_tokens=30 * number, output_tokens=1, model_calls=1)
        tally.calls[str(number)] = spending.CountedReservation("a", "t", spending.model.NOTHING, 5)
        tally.settled[str(number)] = Settled(reservation_id="0" * 32, call_id="c", usage=usage)
    assert (await build_report(tally, "agent", 0, 10, 5)).total.spent.cached_input_tokens == 90


async def test_the_time_is_told_in_equal_parts_that_sum_to_the_total():
    tally = SpendTally()
    for number, at in enumerate((NOW - HOUR_MS, NOW - HOUR_MS // 2 - 1, NOW - 1, NOW + 5), 1):
        count_message(tally, fact(number, at=at), "agent")
    count_message(tally, settled(1, 4), "agent")
    told = await build_report(tally, "agent", NOW - HOUR_MS, NOW, 20, slices=4)
    assert told.slices == (8, 100, 0, 200), "what has not settled counts as it is held; a clock may be ahead"
    assert sum(told.slices) == told.total.spent.cost_usd_micros + told.total.held.cost_usd_micros
    assert (await build_report(tally, "agent", NOW - HOUR_MS, NOW, 20)).slices == ()


async def test_the_rows_beyond_a_page_come_by_the_next_one():
    tally = SpendTally()
    for number in range(7):
        ask = UnitSums(tokens=10, cost_usd_micros=100 - number)
        tally.calls[f"c{number}"] = spending.CountedReservation(f"user-{number}", "t", ask, 5)
    pages = [await build_report(tally, "user", 0, 10, 3, skip=skip) for skip in (0, 3, 6)]
    assert [row.name for page in pages for row in page.rows] == [f"user-{number}" for number in range(7)]
    assert [page.rest_rows for page in pages] == [4, 1, 0] and len({page.total.held.tokens for page in pages}) == 1


async def test_admissions_have_their_turn_while_many_calls_are_summed_and_listed():
    tally, many = SpendTally(), 10 * TURN
    for number in range(many):
        tally.calls[f"c{number}"] = spending.CountedReservation(
            f"user-{number}", "t", UnitSums(), 5, f"c{number}", "tool_executor", call_id=f"c{number}", resource="m1"
        )
    for answer in (build_report(tally, "user", 0, 10, 3, outliers=3), list_calls(tally, {}, 0)):
        answering, turns = asyncio.ensure_future(answer), 0
        while not answering.done():
            await asyncio.sleep(0)
            turns += 1
        assert await answering and turns >= many / TURN
