"""200 calls race for the last cent, on real processes: nats-server, Redis, three replicas of budget, killed at random.

Whatever dies, what doers were told that it holds fits under the ceiling, what they then used is what the ledger has
spent, and everybody gets an answer. The draws are seeded; when they strike is counted in answers, not in time.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.runtime.consume import batched_reservations, inbound
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.task import TaskLimits
from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.fixtures.doer import SERVICE, TENANT, Doer, grant_of, speaking
from tests.e2e.fixtures.money import ROW, TAG
from tests.e2e.fixtures.world import until

CALLS, WORST, FIT = 200, 7, 37
LIMIT = FIT * WORST + WORST - 1
"""The last cent: six of the seven that one call more would need."""
REPLICAS = 3
ENVIRON = {"BULKHEAD_WATCH": "off"}


@dataclass
class Race:
    """What the callers heard, and what the provider would have been paid."""

    doer: Doer
    draw: random.Random
    heard: Counter[str] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    calm_waits: set[str] | None = None
    go: asyncio.Event = field(default_factory=asyncio.Event)
    _marks: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    async def call(self, name: str, used: int) -> None:
        """One doer: asks until it has a word, some of it twice at a time; calls; says what it cost, some of it
        twice."""
        copies = 1 + (self.draw.random() < 0.2)
        while name not in self.told:
            for answer in await asyncio.gather(*(self.doer.ask(name, WORST, copy) for copy in range(copies))):
                self._hear(
                    name,
                    answer.decision if answer is not None else "nothing",
                    answer.reason if answer is not None else "",
                )
            if name in self.refused and name not in self.told:
                return
            if name not in self.told:
                await asyncio.sleep(self.draw.uniform(0.2, 0.6))
        await self.go.wait()
        self.used[name] = used
        for copy in range(1 + (self.draw.random() < 0.3)):
            await self.doer.settle(name, used, copy)

    def _hear(self, name: str, decision: str, reason: str) -> None:
        self.heard[decision] += 1
        if decision == "reserved":
            self.told.add(name)
            # What is told and not used yet may all be used.
            assert sum(self.used.get(one, WORST) for one in self.told) <= LIMIT, sorted(self.told)
        elif decision == "refused":
            self.refused[name] = reason
        elif decision == "wait" and self.calm_waits is not None:
            self.calm_waits.add(name)
        while self._marks and self._marks[0][0] <= self.heard.total():
            self._marks.pop(0)[1].set()

    async def answers(self, more: int) -> None:
        """Until so many more answers were heard."""
        event = asyncio.Event()
        self._marks.append((self.heard.total() + more, event))
        self._marks.sort(key=lambda one: one[0])
        await asyncio.wait_for(event.wait(), 30)


async def killing(mesh: LocalMesh, race: Race, draw: random.Random, times: int) -> None:
    """kill -9 a replica after a drawn number of answers; a supervisor starts it again, and the ledger is built anew."""
    for _ in range(times):
        await race.answers(draw.randint(1, 60))
        await mesh.kill_replica("budget", draw.randrange(REPLICAS))


async def accounts(mesh: LocalMesh) -> dict[str, tuple[int, int]]:
    """Micro dollars held and spent by account, as Redis has them."""
    redis = Redis.from_url(mesh.redis_url)
    try:
        epoch = (await redis.get(f"{TAG}:epoch") or b"").decode().partition(" ")[0]
        prefix, found = f"{TAG}:{epoch}:s:", {}
        async for key in redis.scan_iter(match=f"{prefix}*"):
            row = ROW.unpack(await redis.get(key))
            found[key.decode().removeprefix(prefix)] = (int(row[1]), int(row[6]))
        return found if epoch else {}
    finally:
        await redis.aclose()


async def facts(mesh: LocalMesh, task: str) -> tuple[set[str], dict[str, int]]:
    """Reservations, and settlements by reservation, as the inboxes hold them."""
    bus = await JetStreamBus.connect(mesh.nats_url, service="operator", nkey_seed=mesh.nkey_seed("operator"))
    try:
        held = [
            one
            for subject in (
                subjects.mesh_subject("budget", "journal", TENANT, task),
                batched_reservations.batch_subject(TENANT),
            )
            for one in await bus.read("INBOX_JOURNAL", subject, limit=1_000)
        ]
        paid = await bus.read("INBOX_BUDGET", subjects.mesh_subject(SERVICE, "budget", TENANT, task), limit=1_000)
    finally:
        await bus.close()
    reserved = {
        one.body.reservation_id
        for stored in held
        for one in batched_reservations.unpack_facts(inbound.read_message(stored, "journal"))
        if isinstance(one.body, Reserved) and one.task == task
    }
    settled = [Settled.model_validate_json(one.body) for one in paid if one.ce_type == Settled.ce_type()]
    return reserved, {one.reservation_id: one.usage.cost_usd_micros for one in settled}


async def ledger_is(mesh: LocalMesh, race: Race, *, exactly: bool) -> None:
    """Every account has spent what the provider was paid, and holds what nobody settled.

    A fact that came after a rebuild is held only from the next one on: nobody was told of it.
    """
    reserved, settled = await facts(mesh, race.doer.task)
    assert settled == race.used and set(settled) == race.told <= reserved
    unheard = len(reserved - race.told) * WORST
    seen: dict[str, tuple[int, int]] = {}

    async def there() -> bool:
        seen.clear()
        seen.update(await accounts(mesh))
        return any(name.startswith("task:") for name in seen) and all(
            spent == sum(race.used.values()) and (held == unheard if exactly else held <= unheard)
            for held, spent in seen.values()
        )

    try:
        await until(there, "the ledger is what the facts say")
    except AssertionError:
        raise AssertionError(f"paid {sum(race.used.values())}, unheard {unheard}, the ledger has {seen}") from None
    assert {name.partition(":")[0] for name in seen} == {"task", "agent", "user", "day", "month", "mesh"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11])
async def test_200_calls_race_for_the_last_cent_while_budget_is_killed(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    mesh = LocalMesh(
        tmp_path / "mesh",
        services=("budget",),
        scale={"budget": REPLICAS},
        offline_model=False,
        environ=dict(os.environ) | {"OPENAI_API_KEY": "none is called"},
        extra_env={"budget": ENVIRON},
    )
    async with mesh, speaking(mesh) as publisher:
        doer = Doer(publisher, "race", grant_of(mesh, "race", TaskLimits(cost_usd_micros=LIMIT)))
        race = Race(doer, random.Random(seed + 1))
        async with asyncio.timeout(150), asyncio.TaskGroup() as callers:
            for number in range(CALLS):
                callers.create_task(race.call(f"call-{number}", draw.randint(0, WORST)))
            await killing(mesh, race, draw, 2)
            await mesh.wait_until_ready()
            race.calm_waits = set()
            names = {f"call-{number}" for number in range(CALLS)}
            await until(lambda: _all(names <= race.told | race.calm_waits), "everybody has a word")
            assert not race.refused and len(race.told) <= FIT
            reserved, _ = await facts(mesh, "race")
            assert race.told <= reserved and len(reserved) >= FIT, "all that fits is held"
            race.go.set()
            await killing(mesh, race, draw, 2)
        assert set(race.refused) | race.told == names, "everybody got an answer"
        assert LIMIT - WORST < sum(race.used.values()) <= LIMIT
        assert all("spent" in reason and "limit" in reason for reason in race.refused.values())
        await ledger_is(mesh, race, exactly=False)
        # Nothing but the streams: the same. The next call notices.
        await mesh.kill_redis(empty=True)
        await until(lambda: doers_word(doer), "the ledger stands again")
        await ledger_is(mesh, race, exactly=True)


async def doers_word(doer: Doer) -> bool:
    """Whether one more call is refused, and no longer told to wait."""
    answer = await doer.ask("one-more", WORST)
    return answer is not None and answer.decision == "refused"


async def _all(yes: bool) -> bool:
    return yes
