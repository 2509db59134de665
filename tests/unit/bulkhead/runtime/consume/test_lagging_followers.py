"""A read may be answered by a follower that lags: nothing that was acked may count as gone at the first look."""

import asyncio

import pytest

from bulkhead.blobs import BlobMissing, Blobs
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.clock import MachineClock
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.decider import fold
from bulkhead.runtime.halts.live import Halts, HaltTarget
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Halt
from bulkhead_contracts.result import ContentRef
from tests.simulation.mesh.chaos import Chaos
from tests.simulation.mesh.net import Net
from tests.simulation.scenario import Scenario


class Follower(MemoryBroker):
    """Shows nothing of BLOBS in its first `blind` reads."""

    blind = 0

    def horizon(self, stream: str) -> int | None:
        if stream == "BLOBS" and self.blind:
            self.blind -= 1
            return 0
        return None


async def blobs() -> tuple[Follower, Blobs, ContentRef]:
    broker = Follower.for_mesh()
    ref = await Blobs(MemoryBus(broker, "rag"), "rag").put("demo", "a passage")
    return broker, Blobs(MemoryBus(broker, "worker"), "worker"), ref


async def test_a_content_that_a_follower_does_not_show_yet_is_looked_for_again():
    broker, reader, ref = await blobs()
    broker.blind = 2
    assert await reader.get_text("demo", ref) == "a passage"


async def test_a_content_that_nobody_has_is_missing():
    _, reader, ref = await blobs()
    with pytest.raises(BlobMissing, match="may have expired"):
        await asyncio.wait_for(reader.get_text("demo", ref.model_copy(update={"sha256": "ab" * 32})), 5)


async def test_storing_again_what_is_there_is_fine_also_when_it_is_not_shown_yet():
    broker, _, ref = await blobs()
    broker.blind = 1
    assert await Blobs(MemoryBus(broker, "rag"), "rag").put("demo", "a passage") == ref


@pytest.mark.parametrize(("attempts", "age_ms", "given_up"), [(1, 10**6, False), (4, 10, False), (4, 10**6, True)])
def test_after_an_outage_everything_is_old_at_the_first_look(attempts, age_ms, given_up):
    message = ReceivedMessage(None, None, "demo", "t1", "planner", 1, 0, attempts)  # type: ignore[arg-type]
    assert fold._is_given_up(age_ms, message, 5_000) is given_up


class Behind(Net):
    """Its followers show what was stored up to here alone; None: all."""

    shown: int | None = None

    def horizon(self, stream: str) -> int | None:
        return self.shown if stream == "KV_CONTROL" else None


@pytest.mark.parametrize("halted", [True, False])
async def test_a_halt_that_was_heard_is_not_undone_by_a_follower_that_shows_the_entry_before(halted):
    broker = Behind(Scenario(1, ()), Chaos(1), MachineClock(), lambda line: None)
    bus = MemoryBus(broker, "tool_executor")
    halts, target = Halts(bus), HaltTarget("demo", "t1")
    following = asyncio.create_task(halts._follow_entries())
    await asyncio.sleep(0)
    for number, active in enumerate((not halted, halted)):
        halt = Halt(active=active, scope="task", tenant="demo", name="t1", code="c", reason="r", by="ada", pauses=True)
        await bus.publish(subjects.halt_key("task", "demo", "t1"), halt.model_dump_json().encode(), {}, f"m{number}")
    async with asyncio.timeout(5):
        while (halts.find(target) is not None) != halted:
            await asyncio.sleep(0.001)
    broker.shown = 1
    await halts.load()
    assert (halts.find(target) is not None) == halted
    following.cancel()
