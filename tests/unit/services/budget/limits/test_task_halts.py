"""A task that budget ends is ended by budget's own word, not by that of a call which the halt cut short."""

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import MetCeiling
from bulkhead_services.budget.ledger.store import Fenced
from bulkhead_services.budget.limits.task_halts import TaskHaltPublisher

NOW, TENANT, TASK = 1_795_231_204_272, "demo", "t1"
AT = MetCeiling(f"task:{TENANT}:{TASK}", "cost_usd_micros", spent=80, reserved=0, asked=30, limit=100)


class Watched(MemoryBus):
    """One that remembers where it published."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, "budget")
        self.published: list[str] = []

    async def publish(self, subject: str, *args: object, **more: object) -> int:
        self.published.append(subject)
        return await super().publish(subject, *args, **more)  # type: ignore[arg-type]


async def test_the_planner_is_told_before_anything_is_cut_short() -> None:
    bus = Watched(MemoryBroker.for_mesh())
    halts = TaskHaltPublisher(
        bus, Publisher("budget", bus, b"b" * 32, lambda: NOW), MemoryStore(lease_ms=1_000), b"b" * 32
    )
    head = Envelope(id="m1", type=ModelCallRequested.ce_type(), source="worker", time_unix_ms=NOW)
    asked = ModelCallRequested.model_construct()
    with pytest.raises(Fenced):  # All that follows needs a ledger, and here nobody has built one.
        await halts.end_task(ReceivedMessage(head, asked, TENANT, TASK, "worker", 0, NOW, 1), AT, "it spent 80 of 100")
    halt = subjects.control_key("task", TENANT, TASK)
    assert bus.published[1] == halt and ".planner." in bus.published[0], bus.published
