"""FastStream's in-memory test broker drives a decider through its declared app."""

from faststream.nats import TestNatsBroker

from bulkhead.runtime.process.faststream_declaration import declare_service
from bulkhead_contracts.task import TaskCancelRequested


async def test_a_declared_app_takes_its_messages_in_the_test_broker():
    taken = []

    async def take(body):
        taken.append(body)

    _, broker = declare_service("planner", take)
    async with TestNatsBroker(broker) as test:
        body = TaskCancelRequested(reason="enough")
        headers = {"ce-type": body.ce_type()}
        await test.publish(body, "mesh.gateway.planner.3.demo.t1", headers=headers)
    assert taken == [TaskCancelRequested(reason="enough")]
