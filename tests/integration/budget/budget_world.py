"""A mesh with budget in it on a real Redis, and who speaks to it: a doer, the planner, a person through the gateway."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from bulkhead.bus.port import PubAck, StoredMessage
from bulkhead.runtime.context import Context, unix_ms
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import (
    AllowanceReplied,
    AllowanceRequested,
    Amount,
    Limit,
    LimitsReplied,
    LimitsRequested,
    Reserved,
    ReserveReplied,
    ReserveRequested,
    Settled,
    TaskCharged,
)
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RequesterClaim, TaskLimits, TaskStopped
from bulkhead_services.budget.app import Budget, build
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.replies import EDGES, settlements_in
from bulkhead_services.budget.ledger.store import RedisFailure
from bulkhead_services.budget.settings import Settings
from tests.eventually import until
from tests.redis_server import EphemeralRedis

TENANT, TASK = "acme", "t1"
NUMBERS = itertools.count(1)
DOER = "model_gateway"


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EphemeralRedis]:
    server = EphemeralRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


class World:
    """A mesh with budget in it; the test speaks as a doer. in_replies: settlements travel in replies to worker."""

    def __init__(self, mesh: MemoryMesh, edges: dict[str, Budget], *, in_replies: bool) -> None:
        self.mesh, self.edges, self.in_replies = mesh, edges, in_replies
        self.doer = mesh.context(DOER)

    def grant(self, *, grant_cost: int = 100, tokens: int = 1_000, day_cost: int = 10_000, task: str = TASK) -> str:
        grant = TaskGrant(
            tenant=TENANT,
            task=task,
            actor="ada",
            tools=(),
            document_scopes=("default",),
            limits=TaskLimits(cost_usd_micros=grant_cost, tokens=tokens),
            day_cost_usd_micros=day_cost,
            day_tokens=100_000,
            expires_unix_ms=unix_ms() + 3_600_000,
        )
        return self.mesh.context("signer").signer.sign_grant(grant)

    async def ask(
        self, rid: str, cost: int = 10, tokens: int = 10, timeout_s: float = 2.0, **grant: Any
    ) -> ReserveReplied:
        return await self.ask_for(rid, Amount(tokens=tokens, cost_usd_micros=cost), timeout_s, **grant)

    async def ask_for(self, rid: str, worst_case: Amount, timeout_s: float = 2.0, **grant: Any) -> ReserveReplied:
        """As a doer that asks for this amount."""
        body = ReserveRequested(reservation_id=rid, call_id=rid, purpose="model", resource="m", worst_case=worst_case)
        task = grant.get("task", TASK)
        answer = await self.doer.publisher.request(
            "budget",
            body,
            tenant=TENANT,
            task=task,
            grant=self.grant(**grant),
            cause="c",
            index=rid,
            timeout_s=timeout_s,
        )
        assert isinstance(answer, ReserveReplied)
        return answer

    async def asked_until(self, decision: str, rid: str, **more: Any) -> ReserveReplied:
        """Ask as a doer does: `wait` means again, under the same id."""
        found: list[ReserveReplied] = []

        async def there() -> bool:
            found.append(await self.ask(rid, **more))
            return found[-1].decision == decision

        await until(there)
        return found[-1]

    async def limits(
        self, target: str | None = None, role: str = "operator", tenant: str = TENANT, **limit: int
    ) -> LimitsReplied:
        """As the gateway asks, for a person of a tenant."""
        claim = RequesterClaim(tenant=tenant, person="ada", role=role, via="api_key")  # type: ignore[arg-type]
        ask = LimitsRequested(requester=claim, target=target, limit=Limit(**limit))
        answer = await self.mesh.context("gateway").publisher.request(
            "budget", ask, tenant=TENANT, task="limits", index=str(next(NUMBERS))
        )
        assert isinstance(answer, LimitsReplied)
        return answer

    async def allowance(self, **grant: Any) -> AllowanceReplied:
        """As doors asks for the run of an agent."""
        answer = await self.mesh.context("doors").publisher.request(
            "budget",
            AllowanceRequested(),
            tenant=TENANT,
            task=TASK,
            grant=self.grant(**grant),
            index=str(next(NUMBERS)),
        )
        assert isinstance(answer, AllowanceReplied)
        return answer

    async def stop(self, task: str = TASK) -> PubAck:
        """As the planner does when a task is cancelled."""
        body = TaskStopped(code="cancelled", reason="not needed")
        return await self.mesh.context("planner").publisher.send("budget", body, tenant=TENANT, task=task, cause="stop")

    async def charged(self, count: int) -> list[TaskCharged]:
        """What the gateway was told the task has cost, so many times."""

        async def told() -> list[StoredMessage]:
            found = await self.mesh.messages("INBOX_GATEWAY", f"mesh.budget.gateway.*.{TENANT}.{TASK}.*")
            return [one for one in found if one.headers["ce-type"] == TaskCharged.ce_type()]

        async def there() -> bool:
            return len(await told()) >= count

        await until(there)
        return [TaskCharged.model_validate_json(one.body) for one in await told()]

    async def settle(
        self,
        rid: str,
        cost: int = 10,
        tokens: int = 10,
        *,
        estimated: bool = False,
        guess: bool = False,
        wall_ms: int = 0,
        task: str = TASK,
        sender: Context | None = None,
        index: str = "settled",
        unused: tuple[str, ...] = (),
    ) -> PubAck:
        usage = Usage(input_tokens=tokens, cost_usd_micros=cost)
        usage = usage.as_estimate() if guess else usage
        body = Settled(
            reservation_id=rid, call_id=rid, estimated=estimated, usage=usage, wall_ms=wall_ms, unused=unused
        )
        publisher = (sender or self.doer).publisher
        if self.in_replies:
            reply = CallDeferred(call_id=rid, after_ms=1, settled=(body,))
            return await publisher.send("worker", reply, tenant=TENANT, task=task, cause=rid, index=index)
        return await publisher.send("budget", body, tenant=TENANT, task=task, cause=rid, index=index)

    async def ready(self, instance: str = "0") -> None:
        await asyncio.wait_for(self.edges[instance].keeper.wait_until_built(), 10)

    async def balance(self, scope: str = f"task:{TENANT}:{TASK}", instance: str = "0") -> model.Balance:
        _, balances = await self.edges[instance].store.dump_ledger()
        return balances.get(scope, model.Balance())

    def purged(self, stream: str, task: str, but: int = 0) -> None:
        """Old messages of a task are gone, all but so many."""
        found = self.mesh.broker.get_stream(stream)
        mine = found.read(f"mesh.*.*.*.{TENANT}.{task}.*", 0, 1_000)
        for one in mine[: len(mine) - but]:
            found.delete(one.sequence)

    async def settled_balance(self, spent: int, reserved: int = 0, instance: str = "0", task: str = TASK) -> None:
        seen: tuple[int, int] | None = None

        async def there() -> bool:
            nonlocal seen
            try:
                balance = await self.balance(f"task:{TENANT}:{task}", instance=instance)
            except RedisFailure:
                return False  # The test looks through budget's own connections, which the outage cut too.
            seen = (balance.spent.cost_usd_micros, balance.reserved.cost_usd_micros)
            return seen == (spent, reserved)

        try:
            await until(there)
        except AssertionError as error:
            raise AssertionError(f"(spent, reserved) is {seen}, not {(spent, reserved)}: {error}") from None

    async def facts(self) -> list[StoredMessage]:
        """Of reservations; the marks of rebuilds left out."""
        found = await self.mesh.messages("INBOX_JOURNAL", "mesh.budget.journal.>")
        return [one for one in found if one.headers["ce-type"] == Reserved.ce_type()]

    async def from_journal(self) -> model.LedgerState:
        """The ledger as the streams alone tell it."""
        ledger = model.LedgerState(600_000)
        for stored in await self.facts():
            fact = catalog.decode_body(stored.headers["ce-type"], stored.body)
            assert isinstance(fact, Reserved)
            tenant, task = stored.subject.split(".")[4:6]
            key = model.entry_key(fact.service, tenant, task, fact.reservation_id)
            scopes = model.scopes_from(fact.scopes)
            model.restore(ledger, key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)
        places = [("INBOX_BUDGET", "mesh.*.budget.>"), *((edge.stream, edge.subject) for edge in EDGES)]
        for stream, subject in places:
            for stored in await self.mesh.messages(stream, subject):
                for settlement in settlements_in(stored):
                    body = settlement.body
                    assert isinstance(body, Settled)
                    key = model.entry_key(settlement.sender, settlement.tenant, settlement.task, body.reservation_id)
                    model.settle(ledger, key, model.sum_of_usage(body.usage), body.estimated)
        return ledger


@pytest.fixture(params=["in_replies", "by_messages"])
async def world(redis: EphemeralRedis, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    edges: dict[str, Budget] = {}

    def make(context: Context) -> Budget:
        settings = Settings(redis_url=SecretStr(redis.url), redis_timeout_s=0.5, retry_after_ms=20, ceiling="end")
        edges[context.instance] = build(context, settings)
        return edges[context.instance]

    async with MemoryMesh({"budget": make}) as mesh:
        world = World(mesh, edges, in_replies=request.param == "in_replies")
        await world.ready()
        yield world
    for edge in edges.values():
        await edge.stop()
