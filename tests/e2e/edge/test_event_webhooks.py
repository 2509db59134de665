"""Events of a task on a whole mesh: the tenant's webhook is posted what a subscriber on the bus hears, under one id."""

import json
from pathlib import Path

from bulkhead_contracts import subjects
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.world import World, until
from tests.unit.services.tool_executor.test_webhooks import SECRET, Receiver, receiver, verified

__all__ = ("receiver",)

DEMO = generate_demo(5)
WANTED = ["task.accepted", "task.ended"]


async def heard(world: World, count: int) -> dict[str, str]:
    """Types by id of the first events that the subscriber is handed."""
    found: dict[str, str] = {}
    async with world.bus("sub_demo") as bus:
        consumer = await bus.open_consumer(subjects.EVENTS_STREAM, "sub_demo")

        async def enough() -> bool:
            for one in await consumer.fetch(count - len(found), timeout_s=1):
                found[one.stored.ce_id] = one.stored.ce_type
                await one.ack()
            return len(found) == count

        await until(enough, "the subscriber hears the events")
    return found


async def test_a_webhook_is_posted_what_a_subscriber_hears_also_where_it_failed_first(
    tmp_path: Path, receiver: Receiver
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    hook = {"url": f"http://{receiver.host}/", "secret_file": str(tmp_path / "secret")}
    events = {"BULKHEAD_WEBHOOK_EVENTS": json.dumps({"demo": WANTED})}
    hooks = {"BULKHEAD_WEBHOOKS": json.dumps({"demo": hook})}
    private = {"BULKHEAD_WEBHOOK_PRIVATE_HOSTS": json.dumps([receiver.host])}
    async with World(tmp_path, extra_env={"gateway": events, "tool_executor": events | hooks | private}) as world:
        task = await world.submit("demo", DEMO.objective)
        await world.finish(task)
        told = await heard(world, len(WANTED))

        async def taken() -> bool:
            return set(receiver.taken) >= set(told)

        await until(taken, "the webhook has taken both")
    assert {name.removeprefix("event.").removesuffix(".v1") for name in told.values()} == set(WANTED)
    assert all(verified(SECRET, headers, body) for _, headers, body in receiver.came)
    posted = {one["id"]: one for one in (json.loads(body) for *_, body in receiver.came)}
    assert {name: one["type"] for name, one in posted.items()} == told, "these, and nothing else"
    for one in posted.values():
        assert (one["specversion"], one["subject"], one["data"]["task"]) == ("1.0", task.id, task.id)
        assert DEMO.objective not in json.dumps(one)
