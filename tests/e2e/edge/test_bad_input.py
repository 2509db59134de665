"""Garbage over HTTP, over the bus and from the model: a clear refusal or an honest answer, and nothing lost."""

import json

import pytest

from tests.e2e.fixtures.outsider import headers, raw
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


# Over the bus


async def test_garbage_on_the_bus_is_kept_with_its_reason_and_nothing_stops(world: World) -> None:
    body = json.dumps({"objective": "x"}).encode()
    sent = {
        "bus-nohead": ({}, body, "bad_envelope"),
        "bus-binary": (headers("bus-binary"), bytes(range(256)), "malformed_body"),
        "bus-long": (headers("bus-long"), b'{"objective": "' + b"x" * 400_000 + b'"}', "malformed_body"),
        "bus-type": (headers("bus-type") | {"ce-type": "mesh.task.ended.v1"}, b"{}", "not_in_catalog"),
        "bus-minus": (headers("bus-minus"), b'{"objective": "x", "limits": {"tokens": -5}}', "malformed_body"),
    }
    for task, (head, content, _) in sent.items():
        await raw(world, task, head, content)
    wanted = {task: code for task, (_, _, code) in sent.items()}
    seen: dict[str, str] = {}

    async def buried() -> bool:
        seen.update({one["subject"].split(".")[5]: one["code"] for one in await world.letters()})
        return wanted.items() <= seen.items()

    try:
        await until(buried, "all of it lies with the dead letters")
    except AssertionError:
        raise AssertionError({task: (code, seen.get(task)) for task, code in wanted.items()}) from None
    assert (await world.finish(await world.submit("demo", "Say something.")))["status"] == "succeeded"


# From the model


# A context that is too small, a provider that is out
