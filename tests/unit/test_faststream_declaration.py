"""FastStream's in-memory test broker drives a decider through its declared app."""

from faststream.nats import TestNatsBroker

from bulkhead.runtime.declare import declare
from bulkhead_contracts.task import TaskCancelRequested, TaskSubmitted


async def test_a_declared_app_takes_its_messages_in_the_test_broker():
    taken = []

    async def take(body):
        taken.append(body)

    _, broker = declare("planner", take)
    async with TestNatsBroker(broker) as test:
        await test.publish(TaskCancelRequested(reason="enough"), "mesh.gateway.planner.3.demo.t1")
    assert [type(one) for one in taken if one is not None] and isinstance(taken[0], TaskCancelRequested | TaskSubmitted)
