"""Event streams over a real socket: order, live text, resuming, replicas, slow readers."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import httpx
import pytest

from bulkhead.client.sse import SseParser
from bulkhead_contracts.model import TextDelta
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.task import (
    Progressed,
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskEnded,
    TaskPaused,
    TaskRequested,
)
from bulkhead_contracts.tool import LiveCall
from bulkhead_services.gateway.read_model.events import StreamPosition
from bulkhead_services.gateway.read_model.feeds import MAX_LIVE_CALLS
from bulkhead_services.gateway.read_model.stream import watch_task
from tests.unit.services.gateway.harness import AUTH, make_mesh, running, until

TEXT = "The refund is 40 EUR, as the newer rules say [#0123456789ab]."


@pytest.fixture
def mesh(tmp_path):
    return make_mesh(tmp_path)


class Watcher:
    """Reads one stream in the background; keeps events and, per step, the text as a client builds it."""

    def __init__(self, gateway, task, last_id=""):
        self.events, self.texts, self.ids = [], {}, [last_id] if last_id else []
        self.status, self.done, self.withdrawn = 0, asyncio.Event(), 0
        self._work = asyncio.create_task(self._run(gateway.port, task, last_id))

    async def _run(self, port, task, last_id):
        headers = AUTH | ({"Last-Event-ID": last_id} if last_id else {})
        url = f"http://127.0.0.1:{port}/v1/tasks/{task}/events"
        async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", url, headers=headers) as answer:
            self.status = answer.status_code
            self.headers = answer.headers
            parser = SseParser()
            async for line in answer.aiter_lines():
                event = parser.feed_line(line)
                if event is not None:
                    self._take(event)
        self.done.set()

    def _take(self, event):
        data = json.loads(event.data)
        self.ids.append(event.id)
        if event.name == "text":
            have = self.texts.get(data["step_id"], "")
            assert data["offset"] <= len(have), "a text never has a gap"
            assert data["replace"] == (data["offset"] < len(have))
            self.withdrawn += data["replace"]
            self.texts[data["step_id"]] = have[: data["offset"]] + data["text"]
        self.events.append((event.name, data, time.perf_counter()))

    def names(self):
        return [name for name, _, _ in self.events if name != "text"]

    async def close(self):
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)


@asynccontextmanager
async def watching(gateway, task, last_id=""):
    watcher = Watcher(gateway, task, last_id)
    try:
        yield watcher
    finally:
        await watcher.close()


async def begin(mesh, task="pub_shop-t1", delivery="draft"):
    await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), task)
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=9, delivery=delivery), task)
    plan = Plan(steps=(PlanStep(id="s1", title="Look", instruction="look"),))
    await mesh.say("planner", PlanAdopted(plan=plan), task)
    await mesh.say("planner", StepStarted(step_id="s1", title="Look", attempt=1, plan_version=1), task)


async def end(mesh, text=TEXT, task="pub_shop-t1", attempt=1):
    result = Result(content=await mesh.blob("model_gateway", text))
    await mesh.say(
        "planner",
        StepEnded(step_id="s1", attempt=attempt, plan_version=1, outcome="accepted", result=result, final=True),
        task,
        index=attempt,
    )
    await mesh.say("planner", TaskEnded(status="succeeded", result=result), task)


def delta(offset, text, call="c1", attempt=1, step="s1", verified=False):
    return TextDelta(call_id=call, step_id=step, attempt=attempt, offset=offset, text=text, verified=verified)


def word(event, time_unix_ms, **more):
    place = {"call_id": "c1", "step_id": "s1", "attempt": 1, "time_unix_ms": time_unix_ms}
    return LiveCall(event=event, tool="search_documents", looks_at="refunds", **place, **more)


WHOLE = ["task.accepted", "plan.adopted", "step.started", "step.ended", "task.ended"]


async def test_events_come_in_order_with_the_text_before_its_step_ends(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: "step.started" in watcher.names(), "live")
            for offset in range(0, len(TEXT), 7):
                await mesh.live("pub_shop-t1", delta(offset, TEXT[offset : offset + 7]))
            await until(lambda: watcher.texts.get("s1") == TEXT, "text")
            await end(mesh)
            await asyncio.wait_for(watcher.done.wait(), 10)
        assert watcher.names() == WHOLE and watcher.withdrawn == 0
        assert [name for name, _, _ in watcher.events][-2:] == ["step.ended", "task.ended"]
        assert watcher.events[-1][1]["answer"] == TEXT
        assert watcher.headers["x-accel-buffering"] == "no"
        assert watcher.headers["content-type"].startswith("text/event-stream")
        assert all(watcher.ids)


@pytest.mark.parametrize(
    ("delivery", "verified", "shown"), [("held", True, ""), ("verified", False, ""), ("verified", True, TEXT)]
)
async def test_a_models_words_leave_the_socket_as_the_delivery_allows(mesh, delivery, verified, shown):
    async with running(mesh) as gateway:
        await begin(mesh, delivery=delivery)
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: "step.started" in watcher.names(), "live")
            await mesh.live("pub_shop-t1", delta(0, TEXT, verified=verified))
            await until(lambda: gateway.feeds.feed_of("acme", "pub_shop-t1").live, "heard")
            await mesh.say("planner", TaskPaused(active=True, code="x", reason="y"), "pub_shop-t1")
            await until(lambda: "task.paused" in watcher.names(), "what comes after the text")
            assert watcher.texts.get("s1", "") == shown
            await end(mesh)
            await asyncio.wait_for(watcher.done.wait(), 10)
        assert watcher.texts["s1"] == TEXT, "what the checker accepted"
        said = json.dumps([data for name, data, _ in watcher.events if name != "text"][:-2])
        assert "Look" not in said and "look" not in said, "a model's plan is a model's words"


async def test_calls_wait_for_their_step_and_come_again_where_a_client_may_have_missed_them(mesh):
    async with running(mesh) as gateway:
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: gateway.feeds.feed_of("acme", "pub_shop-t1").watchers, "watched")
            await mesh.live("pub_shop-t1", word("retrieval.started", 1), sender="rag")
            await until(lambda: gateway.feeds.feed_of("acme", "pub_shop-t1").calls, "heard")
            await begin(mesh)
            await until(lambda: "retrieval.started" in watcher.names(), "told")
            await mesh.live("pub_shop-t1", word("retrieval.ended", 2_000_000, outcome="found"), sender="rag")
            await until(lambda: "retrieval.ended" in watcher.names(), "told")
            assert watcher.names() == [*WHOLE[:3], "retrieval.started", "retrieval.ended"]
            position = watcher.ids[-1]
        async with watching(gateway, "pub_shop-t1", position) as again:
            await until(lambda: "retrieval.ended" in again.names(), "told again")
            await end(mesh)
            await asyncio.wait_for(again.done.wait(), 10)
        assert set(again.names()) == {"retrieval.started", "retrieval.ended", *WHOLE[3:]}
        for number in range(2 * MAX_LIVE_CALLS):
            gateway.feeds.feed_of("acme", "pub_shop-t2").add_live_call(word("tool.started", number))
        assert len(gateway.feeds.feed_of("acme", "pub_shop-t2").calls) == MAX_LIVE_CALLS


async def test_a_message_that_tells_several_facts_is_an_event_for_each_and_can_be_resumed_between_them(mesh):
    plan = Plan(steps=tuple(PlanStep(id=name, title="", instruction="look") for name in ("s1", "s2")))
    more = StepStarted(step_id="s2", title="", attempt=1, plan_version=1)
    async with running(mesh) as gateway:
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        await mesh.say(
            "planner",
            Progressed(
                accepted=TaskAccepted(deadline_unix_ms=9),
                adopted=PlanAdopted(plan=plan),
                started=(StepStarted(step_id="s1", title="Look", attempt=1, plan_version=1), more),
            ),
            "pub_shop-t1",
        )
        result = Result(content=await mesh.blob("model_gateway", TEXT))
        await mesh.say(
            "planner",
            Progressed(
                ended=(StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="accepted", result=result),),
                started=(more,),
            ),
            "pub_shop-t1",
            index=1,
        )
        await mesh.say("planner", TaskEnded(status="succeeded", result=result), "pub_shop-t1")
        async with watching(gateway, "pub_shop-t1") as first:
            await asyncio.wait_for(first.done.wait(), 30)
        assert first.names() == [
            "task.accepted",
            "plan.adopted",
            "step.started",
            "step.started",
            "step.ended",
            "step.started",
            "task.ended",
        ]
        assert first.texts == {"s1": TEXT} and len(set(first.ids)) == len(first.ids)
        whole = [(name, data) for name, data, _ in first.events]
        for cut in (1, 2, 5):
            async with watching(gateway, "pub_shop-t1", first.ids[cut]) as second:
                await asyncio.wait_for(second.done.wait(), 30)
            assert whole[: cut + 1] + [(name, data) for name, data, _ in second.events] == whole
        view = (await gateway.feeds.fresh_feed("acme", "pub_shop-t1")).view
        assert {one.step_id: one.status for one in view.steps.values()} == {"s1": "accepted", "s2": "stopped"}


async def test_resuming_after_any_event_gives_every_event_once_and_the_text_whole(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as first:
            await until(lambda: "step.started" in first.names(), "live")
            for offset in range(0, 40, 8):
                await mesh.live("pub_shop-t1", delta(offset, TEXT[offset : offset + 8]))
                await until(lambda n=offset: len(first.texts.get("s1", "")) > n, "piece")
            await end(mesh)
            await asyncio.wait_for(first.done.wait(), 10)
        assert first.texts["s1"] == TEXT
        for cut in range(len(first.events)):
            async with watching(gateway, "pub_shop-t1", first.ids[cut]) as second:
                seen = first.events[: cut + 1]
                second.texts = {}
                for name, data, _ in seen:
                    if name == "text":
                        second.texts["s1"] = second.texts.get("s1", "")[: data["offset"]] + data["text"]
                await asyncio.wait_for(second.done.wait(), 10)
            names = [name for name, _, _ in seen if name != "text"] + second.names()
            assert names == WHOLE, f"cut after event {cut}"
            assert second.texts["s1"] == TEXT, f"cut after event {cut}"
            assert second.withdrawn == 0
        assert second.status == 204


async def test_resuming_in_the_middle_of_live_text(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as first:
            await mesh.live("pub_shop-t1", delta(0, TEXT[:20]))
            await until(lambda: first.texts.get("s1") == TEXT[:20], "first part")
        await mesh.live("pub_shop-t1", delta(20, TEXT[20:30]))
        async with watching(gateway, "pub_shop-t1", first.ids[-1]) as second:
            second.texts = {"s1": TEXT[:20]}
            await mesh.live("pub_shop-t1", delta(30, TEXT[30:]))
            await until(lambda: second.texts["s1"] == TEXT, "the rest")
            assert second.withdrawn == 0


async def test_lost_deltas_and_a_fresh_replica_are_filled_from_the_record(mesh):
    async with running(mesh) as first_gateway:
        await begin(mesh)
        async with watching(first_gateway, "pub_shop-t1") as first:
            await mesh.live("pub_shop-t1", delta(0, TEXT[:10]))
            await until(lambda: first.texts.get("s1") == TEXT[:10], "first part")
            await mesh.live("pub_shop-t1", delta(20, TEXT[20:30]))  # 10..20 was lost.
            async with running(mesh) as fresh, watching(fresh, "pub_shop-t1", first.ids[-1]) as second:
                second.texts = {"s1": TEXT[:10]}
                await until(lambda: second.status == 200, "connected")
                await end(mesh)
                await asyncio.wait_for(first.done.wait(), 10)
                await asyncio.wait_for(second.done.wait(), 10)
        assert first.texts["s1"] == TEXT and first.names() == WHOLE
        assert second.texts["s1"] == TEXT and second.names() == ["step.ended", "task.ended"]
        assert first.withdrawn == second.withdrawn == 0


async def test_a_text_that_became_another_one_is_replaced(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as watcher:
            await mesh.live("pub_shop-t1", delta(0, "Let me look it up"))
            await until(lambda: "s1" in watcher.texts, "first call")
            await mesh.live("pub_shop-t1", delta(0, "The answer", call="c2"))
            await until(lambda: watcher.texts["s1"] == "The answer", "second call")
            await mesh.live("pub_shop-t1", delta(17, " late", call="c1"))
            await end(mesh)
            await asyncio.wait_for(watcher.done.wait(), 10)
        assert watcher.texts["s1"] == TEXT and watcher.withdrawn == 2


async def test_every_replica_sees_what_another_one_handled(mesh):
    """The durable hands all messages to the last gateway; watchers of the first are poked, not polled."""
    async with running(mesh) as first, running(mesh):
        await begin(mesh)
        async with watching(first, "pub_shop-t1") as watcher:
            await until(lambda: "step.started" in watcher.names(), "history")
            await end(mesh)
            await asyncio.wait_for(watcher.done.wait(), 5)  # reread_s is 30 here.
        assert watcher.names() == WHOLE


async def test_lost_pokes_cost_an_interval(mesh):
    async with running(mesh, reread_s=0.05) as gateway:
        await begin(mesh)
        gateway.feeds.apply_poke = lambda *_: None
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: "step.started" in watcher.names(), "history")
            await end(mesh)
            await asyncio.wait_for(watcher.done.wait(), 5)


async def test_parallel_steps_resume_each_where_it_was(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as first:
            await mesh.live("pub_shop-t1", delta(0, "aaaa", step="s1", call="ca"))
            await mesh.live("pub_shop-t1", delta(0, "bbbb", step="s2", call="cb"))
            await until(lambda: len(first.texts) == 2, "both")
        async with watching(gateway, "pub_shop-t1", first.ids[-1]) as second:
            second.texts = {"s1": "aaaa", "s2": "bbbb"}
            await mesh.live("pub_shop-t1", delta(4, "AA", step="s1", call="ca"))
            await mesh.live("pub_shop-t1", delta(4, "BB", step="s2", call="cb"))
            await until(lambda: second.texts == {"s1": "aaaaAA", "s2": "bbbbBB"}, "both go on")
            assert second.withdrawn == 0


async def test_a_stranger_to_an_event_id_is_told(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", headers=AUTH) as client:
            for event_id in ("7", "x" * 2000, "????"):
                answer = await client.get("/v1/tasks/pub_shop-t1/events", headers={"Last-Event-ID": event_id})
                assert answer.status_code == 400 and answer.json()["code"] == "bad_event_id"


async def test_streams_are_bounded_and_end_when_the_replica_drains(mesh):
    async with running(mesh, max_streams=1) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: watcher.events, "first")
            async with watching(gateway, "pub_shop-t1") as refused:
                await until(lambda: refused.status, "second")
                assert refused.status == 503
            await gateway.stop()
            await asyncio.wait_for(watcher.done.wait(), 5)


async def test_heartbeats_keep_the_connection_open(mesh):
    async with running(mesh, heartbeat_s=0.02) as gateway:
        await begin(mesh)
        url = f"http://127.0.0.1:{gateway.port}/v1/tasks/pub_shop-t1/events"
        async with httpx.AsyncClient(timeout=5) as client, client.stream("GET", url, headers=AUTH) as answer:
            async for line in answer.aiter_lines():
                if line == ": alive":
                    return


async def test_a_slow_reader_gets_larger_pieces_and_loses_nothing(mesh):
    pieces = [f"word{n} " for n in range(4_000)]
    whole = "".join(pieces)
    async with running(mesh) as gateway:
        await begin(mesh)
        url = f"http://127.0.0.1:{gateway.port}/v1/tasks/pub_shop-t1/events"
        async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", url, headers=AUTH) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            offset = 0
            for piece in pieces:  # Nobody reads meanwhile.
                await mesh.live("pub_shop-t1", delta(offset, piece))
                offset += len(piece)
            await end(mesh, whole)
            parser, text, events = SseParser(), "", 0
            async for line in lines:
                event = parser.feed_line(line)
                if event is not None and event.name == "text":
                    data = json.loads(event.data)
                    text = text[: data["offset"]] + data["text"]
                    events += 1
        assert text == whole


async def test_a_first_token_leaves_at_once(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        async with watching(gateway, "pub_shop-t1") as watcher:
            await until(lambda: "step.started" in watcher.names(), "history")
            took = []
            for n in range(50):
                before, have = time.perf_counter(), len(watcher.events)
                await mesh.live("pub_shop-t1", delta(n * 2, "ab"))
                await until(lambda have=have: len(watcher.events) > have, "token")
                took.append(watcher.events[-1][2] - before)
        # The quickest: what holds words back holds back each of them; a busy machine does so with many, never with all.
        assert min(took) < 0.010


async def test_a_watcher_who_is_behind_when_the_task_ends_still_hears_the_end(mesh):
    async with running(mesh) as gateway:
        await begin(mesh)
        feed, seen = gateway.feeds.feed_of("acme", "pub_shop-t1"), []
        async for event in watch_task(gateway.feeds, feed, mesh.context("watcher").blobs, StreamPosition()):
            seen.append(event.name)
            if event.name == "step.started":
                # Its socket takes nothing for a while; meanwhile the feed is read to its end.
                await end(mesh)
                await feed.refresh()
    assert seen == ["task.accepted", "plan.adopted", "step.started", "text", "step.ended", "task.ended"]
