"""One mesh that stands while services die at each of their crash points, and stand still: nobody can tell from the
result.

The crash points are the runtime's own list (`crashing.POINTS`); a point that a task never passes fails, so that the
list is true. Kills at moments that a seed draws are in `chaos`.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from bulkhead.client import Task
from bulkhead.runtime import crash_points
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from tests.e2e.fixtures.world import until
from tests.faults.fixtures.errand import TENANT, Errand, consumers, nothing_waits
from tests.faults.fixtures.standing import ACK_WAIT_S, Standing
from tests.paths import ROOT

SOURCES = (Path(crash_points.__file__).parent, ROOT / "services")
PASSES = re.compile(r'crash_points\.pass_point\("(\w+)"\)')
MORE = [
    # The first publish of the gateway stores a request, the second passes it on with its authority.
    ("gateway", "before_publish", 2),
    ("gateway", "after_publish", 2),
]
WHEN_HALTED = ("checker", "between_publishes")
"""Passed only where a halt meets it."""
CASES = [
    *((name, point, 1) for name, has in crash_points.POINTS.items() for point in has if (name, point) != WHEN_HALTED),
    *MORE,
]
STAYS_HELD = {
    (name, point)
    for name in ("model_gateway", "tool_executor")
    for point in ("after_reserve", "after_act", "before_publish")
}
"""Who has reserved and dies before the reply settles nothing: the lease ends what he held."""
AT_START = {("budget", point) for point in ("after_receive", "before_ack", "after_ack")}
"""Passed by the mark of a ledger that is built, and by nothing of a task that succeeds."""
DIES_WITHIN_S = 10.0


def test_the_list_is_whole() -> None:
    files = [path for folder in SOURCES for path in folder.rglob("*.py")]
    in_code = {point for path in files for point in PASSES.findall(path.read_text())}
    assert in_code == set(crash_points.POINT_MEANINGS)
    assert set(crash_points.POINTS) == set(catalog.SERVICES), (
        "add to crash_points.POINTS what each service passes in a task"
    )
    assert {point for points in crash_points.POINTS.values() for point in points} == in_code


@pytest.mark.parametrize(
    "text, said",
    [
        ("walker:after_publish:1", "there is no service 'walker'"),
        ("worker:after_lunch:1", "worker has no crash point 'after_lunch'; it has after_receive"),
        ("signer:before_ack", "signer has no crash point 'before_ack'"),
        ("worker:after_publish:0", "'0' is no number of times"),
        ("worker:after_publish:x", "'x' is no number of times"),
        ("worker", "worker has no crash point ''"),
    ],
)
def test_what_is_no_point_is_refused(text: str, said: str) -> None:
    with pytest.raises(crash_points.UnknownPoint, match=re.escape(said)):
        crash_points.parse(text)


def test_nothing_is_armed_by_default() -> None:
    assert crash_points.parse("") is None and crash_points._armed is None
    crash_points.arm_crash("planner", "worker:after_publish:1")
    assert crash_points._armed is None, "another service's point"


def test_who_is_to_die_at_the_third_time_lives_until_then() -> None:
    armed = crash_points.parse("worker:after_publish:3")
    assert armed is not None
    passed = ("after_publish", "before_publish", "after_publish", "before_ack", "after_publish")
    assert [armed.is_due(point) for point in passed] == [False, False, False, False, True]


def test_a_file_names_a_point_for_one_process_and_is_gone_when_that_dies(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    armed = crash_points.CrashFile("planner", file)
    assert crash_points.parse(f"{crash_points.FILE_PREFIX}{file}") is None and not armed.is_due("after_publish"), (
        "there is no file"
    )
    file.write_text("worker:after_publish:1")
    assert not armed.is_due("after_publish") and file.exists(), "another service's point"
    file.write_text("planner:after_publish:2")
    assert not armed.is_due("before_publish") and not armed.is_due("after_publish")
    assert armed.is_due("after_publish") and not file.exists()
    assert not armed.is_due("after_publish"), "its heir lives"
    file.write_text("planner:after_lunch:1")
    with pytest.raises(crash_points.UnknownPoint):
        armed.is_due("after_publish")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service, point, nth", CASES, ids=[f"{s}-{p}-{n}" for s, p, n in CASES])
async def test_a_crash_changes_nothing(standing: Standing, service: str, point: str, nth: int) -> None:
    before = standing.crashes(service, point)
    at_start = (service, point) in AT_START
    pid = await standing.arm_at_start(service, point, nth) if at_start else standing.arm_crash(service, point, nth)
    await _nobody_can_tell(standing, service, point, pid)
    standing.disarm_crash(service)
    assert standing.crashes(service, point) == before + 1, f"a task passes no {service}:{point} {nth} time(s)"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_crash_in_the_middle_of_building_the_ledger_changes_nothing(standing: Standing) -> None:
    service, point = "budget", "after_publish"
    before = standing.crashes(service, point)
    await _nobody_can_tell(standing, service, point, await standing.arm_at_start(service, point, 1))
    assert standing.crashes(service, point) == before + 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_checker_that_dies_while_it_tells_of_a_halt_changes_nothing(standing: Standing) -> None:
    service, point = WHEN_HALTED
    before, operator = standing.crashes(service, point), standing.client(TENANT, "operator")
    await operator.halt("agent", service, "look at it first")
    try:
        pid = standing.arm_crash(service, point, 1)
        errand = Errand(standing)
        task = await errand.submit_until_taken()

        async def is_paused() -> bool:
            return bool((await operator.task(task.id).show())["status"] == "paused")

        await until(is_paused, "the halt of the checker is told", 40)
        assert await standing.died(service, pid, DIES_WITHIN_S)
    finally:
        await operator.resume("agent", service, "seen")
    document = await errand.ends_rightly()
    assert standing.crashes(service, point) == before + 1
    await nothing_waits(standing)
    await errand.adds_up(document, held=0)
    await errand.said_once()


@pytest.mark.asyncio(loop_scope="module")
async def test_who_asks_budget_in_vain_gives_back_what_it_holds(standing: Standing) -> None:
    """Budget dies with its answer unsent, and its heir is not there before nobody waits any more, as under load."""
    service, point = "budget", "before_answer"
    before = standing.crashes(service, point)
    standing.arm_crash(service, point, 1)
    standing.stays_away(service)
    errand = Errand(standing)
    task = await errand.submit_until_taken()
    await until(lambda: _put_off(standing, task), "the call is put off", 40)
    standing.mesh.unit_of(service).release_hold()
    document = await errand.ends_rightly()
    assert standing.crashes(service, point) == before + 1
    await errand.adds_up(document, held=0)
    found = await standing.history(task)
    [put_off] = {one.body.call_id for one in found if isinstance(one.body, CallDeferred)}
    reserved = {
        one.body.reservation_id for one in found if isinstance(one.body, Reserved) and one.body.call_id == put_off
    }
    settled = [
        one.body.usage == Usage()
        for one in found
        if isinstance(one.body, Settled) and one.body.reservation_id in reserved
    ]
    assert sorted(settled) == [False, True], "held once in vain and given back, held again and used"


async def _put_off(world: Standing, task: Task) -> bool:
    return any(isinstance(one.body, CallDeferred) for one in await world.history(task))


async def _nobody_can_tell(standing: Standing, service: str, point: str, pid: int | None) -> None:
    """From the result of a task that a process of the service dies of."""
    claims = point == "after_claim"
    errand = Errand(standing, tool="counter_increment_unkeyed" if claims else "counter_increment")
    # A gateway may die of the task before, whose last facts come late.
    await errand.submit_until_taken()
    if claims:
        await _is_uncertain(errand)
    else:
        document = await errand.ends_rightly()
    if not await standing.died(service, pid, DIES_WITHIN_S):
        standing.disarm_crash(service)
        pytest.fail(f"a task passes no point {service}:{point}: the list is not true")
    await nothing_waits(standing)
    if not claims:
        await errand.adds_up(document, held=int((service, point) in STAYS_HELD))
        await errand.said_once()


async def _is_uncertain(errand: Errand) -> None:
    """Claimed, and nobody knows whether it was done: it is not done again, and a person is told."""
    assert errand.task is not None
    document = await errand.world.finish(errand.task)
    assert (document["status"], document["failure"]["code"]) == ("failed", "uncertain_effect"), document
    assert "person" in document["failure"]["hint"], document["failure"]
    assert errand.counted() == 0


# A consumer that does not keep up: frozen with a message in hand, or deaf while others shout at it


FREEZES = 6
"""A service that is between two of its requests for messages gets none while it stands still."""
SHOUT_BYTES = 256 * 1024
SHOUTED_MAX_BYTES = 512 * 1024 * 1024


@asynccontextmanager
async def frozen(world: Standing, service: str) -> AsyncIterator[None]:
    """The process stands still, with its connections open."""
    pid = world.mesh.unit_of(service).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", [*catalog.DECIDERS, *catalog.DOERS])
@pytest.mark.nightly
async def test_what_is_delivered_again_to_a_slow_one_is_done_once(standing: Standing, service: str) -> None:
    """Its ack wait passes while it stands still: the broker delivers again, and it finds both."""
    pid = standing.mesh.unit_of(service).pid
    for _ in range(FREEZES):
        errand = Errand(standing)
        async with frozen(standing, service):
            await errand.submit()
            # How long it stands still is the fault; whether the broker delivered again in this time is looked at.
            await asyncio.sleep(1.5 * ACK_WAIT_S)
            again = (await consumers(standing))[f"{service}-0"]["num_redelivered"]
        await errand.ends_rightly()
        await errand.said_once()
        await nothing_waits(standing)
        if again:
            break
    else:
        pytest.fail(f"{service} never had a request for messages open when it was frozen")
    assert standing.mesh.unit_of(service).pid == pid


async def _slow_consumers(world: Standing) -> int:
    async with httpx.AsyncClient() as http:
        return int((await http.get(f"{world.mesh.monitor_url}/varz")).json()["slow_consumers"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deaf_gateway_is_cut_off_by_the_broker_and_comes_back(standing: Standing) -> None:
    """Live text is shouted at a gateway that stands still, until the broker gives it up."""
    before, shouted = await _slow_consumers(standing), 0
    errand = Errand(standing)
    await errand.submit()
    subject = subjects.live_subject("model_gateway", TENANT, "nobody")
    async with standing.bus("model_gateway") as bus, frozen(standing, "gateway"):
        while await _slow_consumers(standing) == before:
            assert shouted < SHOUTED_MAX_BYTES, "the broker never gave it up"
            for _ in range(16):
                await bus.publish_live(subject, b"x" * SHOUT_BYTES)
                shouted += SHOUT_BYTES
    await standing.mesh.wait_until_ready(30)
    await errand.ends_rightly()
    await Errand(standing).run()
    await nothing_waits(standing)
