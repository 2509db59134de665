"""A timers stream is lost with its files and made anew, on a real broker: its numbers begin again, and the inbox that
sources it had read far beyond them. What is set from then on must fire all the same.
"""

import asyncio
import shutil
import time
from pathlib import Path

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusError, Schedule
from bulkhead_contracts import subjects
from bulkhead_infra.identity.policy import PROVISIONER
from bulkhead_infra.nats.provision import provision
from tests.integration.permissions.broker import running

TENANT, BEFORE = "demo", 3
FACT_TIMEOUT_S = 60.0
INBOX, TIMERS = subjects.inbox_stream("planner"), subjects.timers_stream("planner")


async def _set(bus: JetStreamBus, task: str) -> None:
    """Due now. Right after a restart the broker may be away for a moment: said again it is the same."""
    schedule = Schedule(
        subject=subjects.timer_set("planner", TENANT, task, "k"),
        body=b"{}",
        headers={"ce-id": task},
        target=subjects.timer_fired("planner", TENANT, task),
        due_unix_ms=time.time_ns() // 1_000_000,
    )
    while True:
        try:
            await bus.schedule(schedule, task)
            return
        except BusError:
            await asyncio.sleep(0.1)


async def _fired(bus: JetStreamBus, task: str) -> int:
    """Its number in the timers stream."""
    while True:
        try:
            found = await bus.read(INBOX, subjects.mesh_subject("planner", "planner", TENANT, task))
        except BusError:
            found = []
        if found:
            stream, number, *_ = found[0].headers["Nats-Stream-Source"].split(" ")
            assert stream == TIMERS
            return int(number)
        await asyncio.sleep(0.05)


async def test_timers_fire_again_after_their_stream_was_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, asyncio.timeout(FACT_TIMEOUT_S):
        bus = await JetStreamBus.connect(broker.url, service="planner", nkey_seed=broker.seed("planner"))
        try:
            for number in range(BEFORE):
                await _set(bus, f"before{number}")
                last = await _fired(bus, f"before{number}")
            await broker.server.stop()
            lost = [one for one in broker.server.plan.folder.rglob(TIMERS) if one.is_dir()]
            assert len(lost) == 1
            shutil.rmtree(lost[0])
            await broker.server.start()
            report = await provision(broker.url, broker.seed(PROVISIONER))
            assert report.made == [TIMERS]
            await _set(bus, "after")
            assert await _fired(bus, "after") < last, "the numbers began again, and the inbox heard of them"
        finally:
            await bus.close()
