"""A pinned model that changes: told once as a fact and a notice, also by a watcher that was restarted or lost Redis."""

import itertools
from collections.abc import AsyncIterator

import pytest

from bulkhead.testing.redis_server import EphemeralRedis
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_services.budget.watch import watcher
from bulkhead_services.budget.watch.watcher import MARK
from tests.eventually import until
from tests.integration.budget.test_watcher import TENANT, World, watched

NUMBERS = itertools.count()


@pytest.fixture
async def world(redis: EphemeralRedis, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with watched(redis, request.node.name) as found:
        yield found


async def answer(world: World, task: str, fingerprint: str) -> None:
    name = f"c{next(NUMBERS)}"
    body = ModelCallReplied(
        call_id=name,
        outcome="answered",
        prompt_id="planner.draft",
        provider="openai",
        pinned="m-1",
        model="m-1",
        fingerprint=fingerprint,
    )
    to = {"tenant": TENANT, "task": task, "index": f"{task}/{name}"}
    await world.mesh.context("model_gateway").publisher.send("planner", body, **to)


async def changes(world: World, task: str) -> list[str]:
    return [f"{one.detector}: {one.what}" for one in await world.tripped(task) if one.detector.startswith("model.")]


async def notices(world: World) -> list[NoticeRequested]:
    found = await world.mesh.messages("INBOX_TOOL_EXECUTOR", f"mesh.budget.tool_executor.*.{TENANT}.*")
    return [NoticeRequested.model_validate_json(one.body) for one in found]


async def restart(world: World) -> None:
    world.mesh.kill_replica("budget")
    await world.mesh.start("budget")
    await world.folded()


@pytest.mark.parametrize("kept", [True, False])
async def test_a_change_is_told_once_across_restarts(world: World, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """kept: from the mark; otherwise from the journal alone."""
    if kept:
        monkeypatch.setattr(watcher, "MARK_EVERY", 1)
        monkeypatch.setattr(watcher, "RANGE", 0)
    await world.submit("t1")
    await answer(world, "t1", "fp_a")
    await world.end("t1")
    await world.folded()
    if kept:

        async def marked() -> bool:
            return b"fp_a" in await world.edges["0"].store.get_value(MARK)

        await until(marked)
    await restart(world)
    await world.submit("t2")
    await answer(world, "t2", "fp_b")

    async def told() -> bool:
        return bool(await changes(world, "t2")) and bool(await notices(world))

    await until(told)
    (change,) = await changes(world, "t2")
    assert change.startswith("model.fingerprint: openai/m-1") and "'fp_a'" in change and "'fp_b'" in change
    (notice,) = await notices(world)
    assert (notice.kind, notice.account) == ("model_changed", f"model:{TENANT}:openai/m-1")
    await restart(world)
    await answer(world, "t2", "fp_b")
    await world.folded()
    await until(lambda: world.watcher().leads)
    assert len(await changes(world, "t2")) == 1 and len(await notices(world)) == 1 and not await changes(world, "t1")
