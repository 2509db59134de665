"""N and N-1 side by side, in containers: a mesh of this tree is taken back to the version before it and brought up
again, service by service, as docs/how-to/upgrade.md says, under load and with writes at the gate. It takes minutes, so
that only `make compose-test` names this file; CI does the same with processes, tests/e2e/test_previous.py.

In: the images of both. Out: each task ends rightly, each step changes the world once, whoever had it in hand.
"""

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from bulkhead.client import Mesh
from bulkhead_contracts import catalog
from bulkhead_infra.composition import newest_logic
from bulkhead_infra.docker import images
from bulkhead_infra.docker.image_contents import SERVICES
from bulkhead_infra.docker.stack import Stack, docker
from tests.e2e.containers.field import TAG, Count, Field, load
from tests.e2e.fixtures.previous import LOGIC, PREVIOUS, WHY_NOT, has_history

OLD_TAG = f"{TAG}-previous"
DECIDERS = tuple(catalog.DECIDERS)
ALONE = ("budget", "gateway")
"""One at a time: its port can be published once; of two layouts of the ledger one stands. Who asks waits so long."""
OTHERS = tuple(name for name in SERVICES if name not in (*DECIDERS, *ALONE))
OLD = {"BULKHEAD_TAG": OLD_TAG, "BULKHEAD_LOGIC": str(LOGIC)}
READABLE = {"BULKHEAD_BESIDE_PREVIOUS": "true", "BULKHEAD_CHECKPOINT_S": "3", "BULKHEAD_CHECKPOINT_MESSAGES": "1"}
"""Of budget: what it stores from here on, and its checkpoints, the version before reads."""
CHECKPOINT_WITHIN_S = 60.0
HELD = 3
ARRIVES_WITHIN_S = 50.0
"""Less than the gate holds. A tool may try as long as that; so the writes stand there while containers go, not while
they are made."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.skipif(not has_history(), reason=WHY_NOT)]


@pytest.fixture(scope="module")
def previous(built: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """{name: image} of N-1, by its own recipe."""
    found = images.ensure((*SERVICES, "provisioner"), tag=OLD_TAG, revision=PREVIOUS)
    yield found
    docker("image", "rm", "--force", *found.values(), check=False, timeout_s=120)


async def test_every_service_goes_back_and_forth_with_tasks_in_flight(
    field: Field, previous: Mapping[str, str]
) -> None:
    stack = field.stack
    new = {"BULKHEAD_TAG": TAG, "BULKHEAD_LOGIC": str(newest_logic())}
    async with field.client() as client:
        newest = await Count(field, client).submit()
        await asyncio.to_thread(stack.recreate, "budget", READABLE)
        async with asyncio.timeout(CHECKPOINT_WITHIN_S):
            while "checkpoint_made" not in await asyncio.to_thread(stack.logs, "budget"):
                await asyncio.sleep(0.2)
        # Back: the gateway first, so that no task starts under a logic that N-1 lacks; what did is let end.
        await asyncio.to_thread(stack.recreate, "gateway", OLD)
        await newest.ends_rightly()
        async with load(field, client) as loaded:
            tasks = await _replaced(field, client, (DECIDERS, OTHERS), OLD)
            await asyncio.to_thread(stack.recreate, "budget", OLD)
            await asyncio.to_thread(_provisioned, stack)
            assert _images(stack) == {name: previous[name] for name in SERVICES}
            before = len(loaded)
            # Up again, as docs/how-to/upgrade.md has it: rights and streams, doers, deciders, the gateway last.
            stack.become(new)
            await asyncio.to_thread(_provisioned, stack)
            await asyncio.to_thread(stack.recreate, "budget")
            tasks += await _replaced(field, client, (OTHERS, DECIDERS), new)
            await asyncio.to_thread(stack.recreate, "gateway")
        assert before and len(loaded) > before, "tasks went in all the time"
        for task in (*tasks, *loaded, await Count(field, client).submit()):
            await task.ends_rightly()
    assert set(_images(stack).values()).isdisjoint(previous.values())


def _provisioned(stack: Stack) -> None:
    """Accounts and streams of the version that the stack is to be; what the other version knows beside that stays."""
    stack.run("run", "--rm", "-T", "--no-deps", "provision-keys")
    stack.run("kill", "-s", "HUP", "nats")
    stack.run("run", "--rm", "-T", "--no-deps", "provision-streams")


async def _replaced(
    field: Field, client: Mesh, phases: tuple[tuple[str, ...], ...], environ: Mapping[str, str]
) -> list[Count]:
    """Each phase: the other version beside what runs, then alone: who had the writes at the gate in hand goes away."""
    tasks: list[Count] = []
    for services in phases:
        there = await asyncio.to_thread(field.stack.beside, services, environ)
        async with field.counter.held() as arrived:
            tasks += [await Count(field, client).submit() for _ in range(HELD)]
            await arrived(ARRIVES_WITHIN_S)
            await asyncio.to_thread(field.stack.retire, there)
    return tasks


def _images(stack: Stack) -> dict[str, str]:
    """Of each service; one container each."""
    found = {name: [stack.image_of(one) for one in stack.containers(name)] for name in SERVICES}
    assert all(len(one) == 1 for one in found.values()), found
    return {name: one[0] for name, one in found.items()}
