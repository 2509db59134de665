"""Memory of budget: short tasks come and go, and what admission and settlement remember of them stays bounded."""

import asyncio
import gc
import tracemalloc
from typing import cast

import pytest
from pydantic import SecretStr

from bulkhead import grants
from bulkhead.runtime.context import Context, unix_ms
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.budget import Amount, ReserveRequested, Settled
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.types import Body
from bulkhead_services.budget import admission
from bulkhead_services.budget.app import Budget, build
from bulkhead_services.budget.ledger import account_cache
from bulkhead_services.budget.ledger.journal_writer import ReservationFact
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.limits import alerts
from bulkhead_services.budget.settings import Settings

TENANT, DOER = "acme", "model_gateway"
BOUND, TOKENS = 100, 300
MOST_KIB_EACH = 16
"""Of one token with its accounts and its ceilings' rates, as measured: 13 KiB."""
MOST_MIB = 24
"""Of all that is remembered when every map is full; 60 MiB with the bounds of before."""
PLATEAU_KIB = 300
"""Growth over 200 tokens once the maps are full: without a bound it is 2,600 KiB."""


async def call(mesh: MemoryMesh, edge: Budget, number: int) -> None:
    """One task with one step and one call, which is over then."""
    task, name = f"t{number}", f"r{number}"
    grant = TaskGrant(
        tenant=TENANT,
        task=task,
        actor="ada",
        tools=("look", "write"),
        document_scopes=("default",),
        limits=TaskLimits(cost_usd_micros=10**6, tokens=10**6),
        day_cost_usd_micros=10**11,
        day_tokens=10**11,
        expires_unix_ms=unix_ms() + 3_600_000,
    )
    token, doer = mesh.context("signer").signer.sign_grant(grant), mesh.context(DOER)

    def received(body: Body, sequence: int) -> ReceivedMessage:
        head = doer.publisher.make_envelope(body, cause=name, index=sequence, grant=token)
        return ReceivedMessage(head, body, TENANT, task, DOER, sequence, unix_ms(), 1)

    amount = Amount(tokens=10, cost_usd_micros=10)
    ask = ReserveRequested(
        reservation_id=name, call_id=name, step_id="s", agent="a", purpose="model", resource="m", worst_case=amount
    )
    assert (await edge.admission.admit(received(ask, 0))).decision == "reserved"
    used = Settled(reservation_id=name, call_id=name, usage=Usage(input_tokens=5, cost_usd_micros=4))
    await edge.handle_message(received(used, 1))


async def test_tasks_that_are_over_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are made small, so that the plateau is there after a second; how high it is with the real ones follows
    from the size of one entry."""
    full = max(admission.MAX_KNOWN_GRANTS, account_cache.MAX_KNOWN, alerts.MAX_SAMPLED // 2)
    assert full * MOST_KIB_EACH <= MOST_MIB * 1024
    monkeypatch.setattr(admission, "MAX_KNOWN_GRANTS", BOUND)
    monkeypatch.setattr(account_cache, "MAX_KNOWN", BOUND)
    monkeypatch.setattr(alerts, "MAX_SAMPLED", BOUND)
    monkeypatch.setattr(grants, "MAX_GRANTS_KNOWN", BOUND)
    store, edges = MemoryStore(lease_ms=600_000), list[Budget]()

    def make(context: Context) -> Budget:
        edges.append(build(context, Settings(redis_url=SecretStr("memory://"))))
        return edges[-1]

    async def nowhere(_: ReservationFact) -> None:
        """The broker in this process keeps what is stored, which is not budget's memory."""
        for _turn in range(3):
            await asyncio.sleep(0)

    async with MemoryMesh({"budget": make}) as mesh:
        edge = edges[0]
        await edge.keeper.wait_until_built()
        edge.admission._writer.store_fact = nowhere  # type: ignore[method-assign,assignment]
        store = cast(MemoryStore, edge.store)

        async def calls(first: int, last: int) -> int:
            for number in range(first, last):
                await call(mesh, edge, number)
                await asyncio.sleep(0)
                # The ledger is Redis' to keep: there it expires.
                store._ledger.entries.clear()
                store._ledger.balances.clear()
                store._ledger.expiry_by_scope.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0] // 1024

        tracemalloc.start()
        try:
            empty = await calls(0, 10)
            filled = await calls(10, BOUND + 10)
            later = await calls(BOUND + 10, TOKENS + 10)
            latest = await calls(TOKENS + 10, 2 * TOKENS - BOUND + 10)
        finally:
            tracemalloc.stop()
    assert (filled - empty) / BOUND < MOST_KIB_EACH
    # Twice, as some table of the interpreter may be made larger once.
    assert min(later - filled, latest - later) < PLATEAU_KIB
    assert len(edge.admission._grants) == len(edge.admission._scopes._known) == len(edge.alerts._samples) == BOUND
