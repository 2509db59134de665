"""Every service is cut off from the broker, in each direction and in both, without anybody being told.

The service notices by its pings, says so in its log and its readiness, comes back by itself, and the task ends as if
nothing had been. Three services are cut at a time, each in another direction, so that nine rounds are all 27 cases.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from bulkhead_infra.local.supervisor import START_ORDER
from tests.e2e.fixtures.world import until
from tests.faults.fixtures.errand import Errand, ingest, nothing_waits
from tests.faults.fixtures.standing import Standing, short_waits
from tests.faults.fixtures.wires import DIRECTIONS, Rewired, Way, Wires
from tests.needs import need

pytestmark = pytest.mark.nightly

WAYS: tuple[Way, ...] = ("out", "in", "both")
PING_S = 0.5
"""Instead of two seconds: eleven cuts wait for three of them."""
NOTICED_WITHIN_S = 12.0
"""Two pings are missed, then a third is due."""


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    need("namespaces")
    with Wires() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wired(tmp_path_factory: pytest.TempPathFactory, wires: Wires) -> AsyncIterator[Standing]:
    """A mesh whose services have wires of their own."""
    with short_waits():
        ping = {"BULKHEAD_NATS_PING_S": str(PING_S)}
        world = Standing(tmp_path_factory.mktemp("wired"), extra_env=dict.fromkeys(START_ORDER, ping))
        for service, inner in world.environ.items():
            world.environ[service] = Rewired(inner, wires.address(service), world)  # type: ignore[assignment]
        async with world:
            await ingest(world)
            await Errand(world).run()
            yield world


def _cuts(number: int) -> dict[str, Way]:
    return {START_ORDER[(number + 3 * at) % len(START_ORDER)]: way for at, way in enumerate(WAYS)}


def test_all_are_cut_in_all_ways() -> None:
    assert {cut for number in range(len(START_ORDER)) for cut in _cuts(number).items()} == {
        (s, w) for s in START_ORDER for w in WAYS
    }
    assert set(DIRECTIONS) == set(WAYS)


def _lost(world: Standing, service: str) -> int:
    return (world.mesh.directory / "logs" / f"{service}-0.log").read_text().count(" connection_lost ")


async def _noticed(world: Standing, before: dict[str, int]) -> None:
    async def all_did() -> bool:
        return all(_lost(world, service) > count for service, count in before.items())

    await until(all_did, f"{', '.join(before)} notice that nobody answers", NOTICED_WITHIN_S)
    for service in before:
        unit = world.mesh.unit_of(service)
        await unit.probe_now()
        assert unit.state == "not ready" and "the broker does not answer" in unit.detail, (service, unit.status_row())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "number", range(len(START_ORDER)), ids=lambda n: "+".join(f"{s}-{w}" for s, w in _cuts(n).items())
)
async def test_a_partition_is_noticed_and_mends(wired: Standing, wires: Wires, number: int) -> None:
    cuts = _cuts(number)
    before = {service: _lost(wired, service) for service in cuts}
    pids = {service: wired.mesh.unit_of(service).pid for service in cuts}
    for service, way in cuts.items():
        wires.cut(service, way)
    try:
        errand = Errand(wired)
        submitting = asyncio.create_task(errand.submit_until_taken())
        await _noticed(wired, before)
    finally:
        for service, way in cuts.items():
            wires.mend(service, way)
    await submitting
    await errand.ends_rightly()
    await wired.mesh.wait_until_ready(20)
    await nothing_waits(wired)
    await errand.said_once()
    assert {service: wired.mesh.unit_of(service).pid for service in cuts} == pids, "it came back without a restart"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("way", ["in", "out"])
async def test_lost_acks_store_nothing_twice(wired: Standing, wires: Wires, way: Way) -> None:
    """in: the broker has stored what was said, and its word for it is lost. out: it has heard nothing."""
    errand = Errand(wired)
    before = {"tool_executor": _lost(wired, "tool_executor")}
    async with wired.counter.held() as arrived:
        await errand.submit()
        await arrived()
        stored = await _stored(wired)
        wires.cut("tool_executor", way)
    try:
        # The write is done; what follows from it cannot be said, or not be heard to have been said.
        if way == "in":
            await until(lambda: _more(wired, stored), "the broker has stored what came of it")
        await _noticed(wired, before)
        assert (await _more(wired, stored)) is (way == "in")
    finally:
        wires.mend("tool_executor", way)
    await errand.ends_rightly()
    await nothing_waits(wired)
    await errand.adds_up(await errand.task.show(), held=0)  # type: ignore[union-attr]
    await errand.said_once()


async def _stored(world: Standing) -> int:
    """How many contents the broker has of tool_executor and the others."""
    async with world.bus() as bus:
        answer = await bus.request("JSMESH.API.STREAM.INFO.BLOBS", b"")
        return int(json.loads(answer.body)["state"]["messages"])


async def _more(world: Standing, than: int) -> bool:
    return await _stored(world) > than
