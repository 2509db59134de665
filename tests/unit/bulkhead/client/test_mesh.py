"""bulkhead.client against a real gateway: it reconnects, repeats safely, and says what went wrong."""

import asyncio

import httpx
import pytest

from bulkhead.client import Mesh, Refused, Unfit, Unreachable
from bulkhead.client.sse import ServerEventTooLarge, SseParser
from tests.unit.services.gateway.harness import AUDITOR, OPERATOR, make_mesh, running, until
from tests.unit.services.gateway.read_model.test_stream import TEXT, begin, delta, end


def mesh_of(gateway, key=OPERATOR):
    return Mesh(f"http://127.0.0.1:{gateway.port}", key)


async def test_events_survive_a_gateway_that_goes_away(tmp_path):
    mesh, seen = make_mesh(tmp_path), []

    async def read(client):
        async for event in client.task("pub_shop-t1").events():
            seen.append(event)

    async with running(mesh) as first:
        port = first.port
        await begin(mesh)
        client = mesh_of(first)
        reading = asyncio.create_task(read(client))
        await mesh.live("pub_shop-t1", delta(0, TEXT[:9]))
        await until(lambda: seen and seen[-1].name == "text", "live")
    async with running(mesh, http_port=port):
        await end(mesh)
        await asyncio.wait_for(reading, 10)
    await client.close()
    names = [event.name for event in seen if event.name != "text"]
    assert names == ["task.accepted", "plan.adopted", "step.started", "step.ended", "task.ended"]
    text = ""
    for event in seen:
        if event.name == "text":
            assert not event.data["replace"]
            text = text[: event.data["offset"]] + event.data["text"]
    assert text == TEXT


async def test_a_stream_that_ends_just_before_the_task_does_is_taken_up_again():
    """A replica that closes ends its streams in order; by the time the client asks, the task is over."""
    asked = []

    def answer(request):
        asked.append((request.url.path.rpartition("/")[2], request.headers.get("last-event-id", "")))
        match asked[-1]:
            case ("events", ""):
                return httpx.Response(200, text="retry: 1\nid: a\nevent: step.ended\ndata: {}\n\n")
            case ("events", "a"):
                return httpx.Response(200, text='id: b\nevent: task.ended\ndata: {"status": "succeeded"}\n\n')
            case ("pub_shop-t1", _):
                return httpx.Response(200, json={"task_id": "pub_shop-t1", "status": "succeeded"})
        raise AssertionError(asked)

    async with Mesh("http://gateway.example", transport=httpx.MockTransport(answer)) as client:
        assert [event.name async for event in client.task("pub_shop-t1").events()] == ["step.ended", "task.ended"]


async def test_submit_result_and_lists(tmp_path):
    mesh = make_mesh(tmp_path)
    async with running(mesh) as gateway, mesh_of(gateway) as client:
        await begin(mesh)
        waiting = asyncio.create_task(client.task("pub_shop-t1").result(timeout_s=10))
        await end(mesh)
        assert (await waiting).answer == TEXT
        assert [event async for event in client.task("pub_shop-t1").events()][-1].name == "task.ended"
        for n in range(3):
            await client.submit(f"objective {n}", limit_usd=0.5, limit_tokens=10, deadline_s=1.5)
        assert len(await client.tasks(2)) == 2 and len(await client.tasks(50)) == 4
        assert len(await client.tasks(answered="yes,unknown")) == 1 and not await client.tasks(answered="no")
        with pytest.raises(Unfit, match="answered is"):
            await client.tasks(answered="perhaps")
        with pytest.raises(TimeoutError):
            await client.task((await client.tasks(1))[0]["task_id"]).wait_until_ended(timeout_s=0.05)


async def test_what_it_raises(tmp_path):
    mesh = make_mesh(tmp_path)
    async with running(mesh) as gateway:
        async with mesh_of(gateway, AUDITOR) as client:
            with pytest.raises(Refused, match="may not submit") as refused:
                await client.submit("x")
            assert (refused.value.status, refused.value.code) == (403, "forbidden") and refused.value.hint
        async with mesh_of(gateway) as client:
            with pytest.raises(Refused, match="no task"):
                await client.task("t-none").wait_until_ended()
            with pytest.raises(Refused):
                async for _ in client.task("t-none").events():
                    pass
    async with mesh_of(gateway) as client:
        with pytest.raises(Unreachable, match="no answer from"):
            await client.get("/v1/tasks")


def test_the_parser_keeps_to_the_specification():
    parser = SseParser()
    lines = [
        ": comment",
        "retry: 250",
        "id: 7",
        "event: text",
        "data: one",
        "data:two",
        "",
        "data",
        "",
        "id: 8",
        "",
        "event: nothing",
        "",
        "retry: soon",
        "id: bad\0id",
        "data: x",
        "",
    ]
    found = [event for line in lines if (event := parser.feed_line(line))]
    assert [(event.name, event.data, event.id) for event in found] == [
        ("text", "one\ntwo", "7"),
        ("message", "", "7"),
        ("message", "x", "8"),
    ]
    assert (parser.last_id, parser.retry_ms) == ("8", 250)
    with pytest.raises(ServerEventTooLarge):
        for _ in range(10):
            parser.feed_line("data: " + "x" * 1024 * 1024)


async def test_a_mesh_that_was_never_reached_fails_at_once_and_a_lost_one_is_told(tmp_path):
    mesh, told = make_mesh(tmp_path), []
    async with running(mesh) as first:
        port = first.port
        await begin(mesh)
        client = mesh_of(first)
        events = client.task("pub_shop-t1").events(on_lost=lambda error, left_s: told.append((str(error), left_s)))
        assert (await anext(events)).name == "task.accepted"
    async with mesh_of(first) as other, asyncio.timeout(5):
        with pytest.raises(Unreachable, match="no answer from"):
            await anext(other.task("pub_shop-t1").events())

    async def rest():
        return [event.name async for event in events]

    reading = asyncio.create_task(rest())
    await until(lambda: told, "the loss is told")
    async with running(mesh, http_port=port):
        await end(mesh)
        assert (await asyncio.wait_for(reading, 10))[-1] == "task.ended"
    await client.close()
    assert "no answer from" in told[0][0] and 100 < told[0][1] <= 120
