"""Calls of outside agents: stored once, paid once, answered once; told by name when they cannot be."""

import asyncio
import base64
import json

import pytest

from bulkhead.flow.content import in_list
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.control import CallResumed
from bulkhead_contracts.result import Failure
from bulkhead_services.doors import feed
from bulkhead_services.doors.conversations import contents
from bulkhead_services.doors.port import DoorRefusal
from tests.eventually import until
from tests.unit.services.doors.doors_world import CLAIM, TENANT, asked, caller, world

pytestmark = pytest.mark.virtual_time


async def test_a_hundred_turns_store_each_message_once():
    async with world() as here:
        said = []
        for turn in range(100):
            said += [{"role": "user", "content": f"turn {turn}"}, {"role": "assistant", "content": f"did {turn}"}]
            call = await here.doors().begin_model_call(
                caller(), asked(messages=tuple(said), options={"temperature": 0})
            )
            await call.wait_for_answer()
        assert await here.blobs() == 200 + 1 + 6, "a blob for each message, one for the options, six lists"
        last, blobs = here.models.asked[-1], here.mesh.context("model_gateway").blobs
        [*lists, _, newest] = last.conversation.messages
        assert len(lists) == 6 + 6 and last.prompt_id == "adopted@1"
        assert lists[:6] == list(here.models.asked[-2].conversation.messages[:6]), "shared with the turn before"
        first = in_list(lists[0], await blobs.get(TENANT, lists[0]))[0]
        assert await blobs.get_text(TENANT, first) == '{"content":"turn 0","role":"user"}'
        assert await blobs.get_text(TENANT, newest) == '{"content":"did 99","role":"assistant"}'
        assert len(last.encode()) < 5_000, "and not 161 bytes for each message"
        options = await here.mesh.context("model_gateway").blobs.get_text(TENANT, last.conversation.options)
        assert json.loads(options) == {"temperature": 0}


@pytest.mark.parametrize("count", [1_001, bounds.MAX_CONVERSATION_ROWS])
async def test_more_messages_than_one_request_names_stand_in_lists(count):
    async with world() as here:
        messages = tuple({"role": "user", "content": f"m{number % 700}"} for number in range(count))
        call = await here.doors().begin_model_call(caller(), asked(messages=messages))
        assert (await call.wait_for_answer()).text == "answer 1"
        listed = (count - 1) // bounds.LISTED_REFERENCES
        assert len(here.models.asked[-1].conversation.messages) == listed + count - listed * bounds.LISTED_REFERENCES


async def test_the_same_message_written_in_another_order_is_the_same_blob():
    async with world() as here:
        for row in ({"role": "user", "content": "é"}, {"content": "é", "role": "user"}):
            await here.doors().begin_model_call(caller(), asked(messages=(row,)))
        assert await here.blobs() == 1


async def test_a_tenant_stores_no_more_in_a_day_than_its_quota_has(tmp_path):
    (tmp_path / "tenants.yaml").write_text("tenants: {demo: {quota: {request_bytes_per_day: 1048576}}}")
    async with world(tenants_file=tmp_path / "tenants.yaml") as here:
        text = "x" * 400_000
        for _ in range(2):
            await here.answer(text)  # What is stored is counted once.
        for person, whose in (("ann", "you have sent half"), ("bob", ""), ("carl", "your tenant has sent")):
            by = caller(claim=CLAIM.model_copy(update={"person": person}))
            if not whose:
                await here.answer("y" + text, by=by)  # Ann has used up her half, and nobody else's.
                continue
            with pytest.raises(DoorRefusal, match=whose) as told:
                await here.answer("z" + text, by=by)
            assert (told.value.status, told.value.code, told.value.retry) == (429, "too_many_bytes", False)
            assert told.value.retry_after_s > 3_600
        assert await here.blobs() == 2


async def test_a_conversation_that_fits_no_model_leaves_nothing_in_the_store():
    async with world() as here:
        most = here.models.context_tokens * contents.MOST_BYTES_PER_TOKEN
        for extra in (-1_000, 1_000):
            text = "x" * (most + extra)
            if extra < 0:
                await here.answer(text)
                continue
            with pytest.raises(DoorRefusal, match="default has room for") as refused:
                await here.answer(text)
            assert (refused.value.status, refused.value.code) == (400, "context_overflow")
        assert await here.blobs() == 1 and len(here.models.asked) == 1
        picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1" + bytes(most)
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        assert await here.answer(messages=(shown,)), "an image counts by what it shows"


async def test_a_request_asks_for_what_was_asked():
    async with world(output_tokens=77) as here:
        await here.answer(model="gpt-x", max_output_tokens=5)
        await here.answer("other")
        first, second = here.models.asked
        assert (first.tier, first.max_output_tokens, first.stream) == ("gpt-x", 5, True)
        assert (second.tier, second.max_output_tokens) == ("default", 77)
        [stored, _] = await here.mesh.messages("INBOX_MODEL_GATEWAY", "mesh.doors.>")
        assert stored.header("bulkhead-grant") and stored.actor == "ann"


async def test_a_retry_is_answered_from_the_record_also_by_another_replica_and_after_a_restart():
    async with world() as here:
        await here.mesh.start("doors", "1")
        call = await here.call()
        assert (await call.wait_for_answer()).text == "answer 1"
        for instance in ("0", "1"):
            again = await here.call(by=caller(retry=True), instance=instance)
            assert again.call_id == call.call_id and (await again.wait_for_answer()).text == "answer 1"
        here.mesh.kill_replica("doors", "0")
        await here.mesh.start("doors", "2")
        assert await here.answer(by=caller(retry=True), instance="2") == "answer 1"
        assert len(here.models.asked) == 1


async def test_a_replica_that_was_killed_in_mid_call_leaves_it_to_another_which_pays_nothing_twice():
    async with world() as here:
        here.models.away = True
        call = await here.call()
        waiting = asyncio.create_task(call.wait_for_answer())
        await asyncio.sleep(0.1)
        here.mesh.kill_replica("doors", "0")
        await here.mesh.start("doors", "1")
        retried = asyncio.create_task(here.answer(by=caller(retry=True), instance="1"))
        await asyncio.sleep(0.2)
        here.models.away = False
        assert await retried == "answer 1" and len(here.models.made) == 1
        stored = await here.mesh.messages("INBOX_MODEL_GATEWAY", "mesh.doors.>")
        assert len({one.ce_id for one in stored}) == 1
        waiting.cancel()


async def test_the_same_request_twice_is_two_calls_in_a_row_and_at_once():
    async with world() as here:
        assert [await here.answer(), await here.answer()] == ["answer 1", "answer 2"]
        both = await asyncio.gather(here.answer(), here.answer())
        assert sorted(both) == ["answer 3", "answer 4"]
        assert await here.answer(by=caller(retry=True)) in both, "a retry repeats the newest"


async def test_an_idempotency_key_stands_for_a_call():
    async with world() as here:
        answers = [await here.answer(by=caller(idempotency_key=key)) for key in ("a", "a", "b")]
        assert answers == ["answer 1", "answer 1", "answer 2"]
        await here.mesh.start("doors", "1")
        for instance in ("0", "1"):
            with pytest.raises(DoorRefusal) as refused:
                await here.answer("another", by=caller(idempotency_key="a"), instance=instance)
            assert (refused.value.status, refused.value.code) == (422, "idempotency_reused")
            assert await here.answer(by=caller(idempotency_key="a"), instance=instance) == "answer 1"


async def test_an_idempotency_key_that_comes_twice_at_once_stands_for_one_call():
    async with world() as here:
        answers = await asyncio.gather(*(here.answer(by=caller(idempotency_key="k")) for _ in range(3)))
        assert answers == ["answer 1"] * 3 and len(here.models.asked) == 1


async def test_a_retry_whose_first_try_never_came_has_the_call_of_its_key():
    async with world() as here:
        answers = [await here.answer(by=caller(idempotency_key=key, retry=True)) for key in ("a", "b", "a")]
        assert answers == ["answer 1", "answer 2", "answer 1"]


async def test_a_retry_of_a_call_before_many_others_is_answered_from_the_stream():
    async with world() as here:
        for number in range(feed.MAX_REPLIES + 2):
            await here.answer(f"q {number}")
        assert await here.answer("q 0", by=caller(retry=True)) == "answer 1"
        assert len(here.models.asked) == feed.MAX_REPLIES + 2


async def test_a_retry_is_not_answered_by_the_same_request_of_long_ago():
    async with world(call_timeout_s=0.5) as here:
        await here.answer()
        await asyncio.sleep(0.6)
        assert [await here.answer(by=caller(retry=True)) for _ in range(2)] == ["answer 2", "answer 2"]


async def test_a_retry_in_a_run_that_has_ended_sends_nothing():
    async def busy(models, message, request):
        return models.refused(request, "rate_limited", "slow down")

    async with world() as here:
        here.models.script = busy
        call = await here.call()
        with pytest.raises(DoorRefusal):
            await call.wait_for_answer()
        await here.doors().end_run(caller(), call.run_spending.task)
        with pytest.raises(DoorRefusal, match="slow down"):
            await here.answer(by=caller(retry=True))
        assert len(here.models.asked) == 1


async def test_a_call_that_cannot_be_made_leaves_nothing_behind():
    async with world() as here:
        with pytest.raises(ValueError):
            await here.call(max_output_tokens=bounds.MAX_ASKED_OUTPUT_TOKENS + 1)
        assert here.doors().calls.in_flight.count == 0


async def test_a_retry_of_a_call_of_a_run_that_has_ended_meanwhile_is_answered():
    async with world() as here:
        call = await here.call()
        await call.wait_for_answer()
        await here.doors().end_run(caller(), call.run_spending.task)
        again = await here.call(by=caller(retry=True))
        assert (await again.wait_for_answer()).text == "answer 1" and again.run_spending.task == call.run_spending.task


async def test_an_asker_who_goes_away_leaves_the_call_to_its_end():
    async with world() as here:
        here.models.away = True
        waiting = asyncio.create_task(here.answer())
        await until(lambda: here.doors().calls.in_flight.count)
        await asyncio.sleep(0.1)
        waiting.cancel()
        here.models.away = False
        await until(lambda: here.models.made)
        assert await here.answer(by=caller(retry=True)) == "answer 1"
        await until(lambda: not here.doors().calls.in_flight.count)


async def test_failures_are_refusals_by_name():
    said = {
        "refused_by_budget": (403, False),
        "halted": (403, False),
        "unknown_route": (404, False),
        "context_overflow": (400, False),
        "provider_error": (502, False),
        "request_refused": (400, False),
        "rate_limited": (429, True),
    }
    async with world() as here:
        for code, expected in said.items():

            async def refuse(models, message, request, code=code):
                return models.refused(request, code, f"it is {code}")

            here.models.script = refuse
            call = await here.call(code)
            with pytest.raises(DoorRefusal) as told:
                await call.wait_for_answer()
            assert (told.value.status, told.value.retry) == expected and told.value.code == code
            with pytest.raises(DoorRefusal):
                _ = [piece async for piece in call.follow_pieces()]


async def test_a_retry_that_was_told_to_come_again_is_tried_again_under_the_same_call():
    async with world() as here:
        failures = ["rate_limited", "provider_error"]

        async def fail(models, message, request):
            code = failures.pop(0) if failures else ""
            return models.refused(request, code, "no") if code else await models.counted(message, request)

        here.models.script = fail
        call_ids = []
        for expected in ("rate_limited", "provider_error", "provider_error"):
            call = await here.call(by=caller(retry=bool(call_ids)))
            call_ids.append(call.call_id)
            with pytest.raises(DoorRefusal) as told:
                await call.wait_for_answer()
            assert told.value.code == expected
        assert len(set(call_ids)) == 1 and len(here.models.asked) == 2
        assert await here.answer() == "answer 1", "the same request anew is another call"


async def test_what_no_model_gateway_takes_is_refused_at_once():
    async with world() as here:
        bad = [
            (asked(messages=()), 400),
            (asked(*["x"] * (bounds.MAX_CONVERSATION_ROWS + 1)), 400),
            (asked(model="m" * 65), 404),
            (asked(model=""), 404),
            (asked("x" * bounds.MAX_BLOB_BYTES), 413),
        ]
        for one, status in bad:
            with pytest.raises(DoorRefusal) as told:
                await here.doors().begin_model_call(caller(), one)
            assert told.value.status == status and not told.value.retry
        assert here.models.asked == []


@pytest.mark.parametrize(
    ("bound", "status"), [("max_calls", 503), ("max_calls_per_tenant", 429), ("max_calls_per_person", 429)]
)
async def test_more_calls_in_flight_than_are_allowed_are_told_to_come_again(bound, status):
    async with world(**{bound: 2}) as here:
        here.models.away = True
        calls = [await here.call(f"q {n}") for n in range(2)]
        with pytest.raises(DoorRefusal) as told:
            await here.call("one more")
        assert (told.value.status, told.value.retry, told.value.retry_after_s) == (status, True, 1.0)
        here.models.away = False
        assert {(await call.wait_for_answer()).text for call in calls} == {"answer 1", "answer 2"}
        assert await here.answer("one more") == "answer 3"


async def test_a_model_gateway_that_is_away_is_waited_for_and_told():
    async with world(call_timeout_s=0.3) as here:
        here.models.away = True
        call = await here.call()
        monkey = asyncio.get_running_loop().time()
        with pytest.raises(DoorRefusal) as told:
            async with asyncio.timeout(10):
                await call.wait_for_answer()
        assert (told.value.status, told.value.retry) == (503, True)
        assert asyncio.get_running_loop().time() - monkey < 7
        here.models.away = False
        assert await here.answer(by=caller(retry=True)) == "answer 1" and len(here.models.made) == 1


async def test_a_call_that_is_put_off_is_asked_again_and_answered():
    async with world() as here:
        times = []

        async def busy_twice(models, message, request):
            times.append(message.envelope.id)
            if len(times) < 3:
                return models.put_off(request, reason="budget does not answer")
            return await models.counted(message, request)

        here.models.script = busy_twice
        assert await here.answer() == "answer 1" and len(set(times)) == 3
        assert here.planner.paused == []


async def test_a_call_that_is_put_off_for_too_long_is_refused_and_may_be_asked_again():
    async with world(hold_s=0.2) as here:

        async def busy(models, message, request):
            return models.put_off(request, reason="budget does not answer")

        here.models.script = busy
        call = await here.call()
        with pytest.raises(DoorRefusal) as told:
            await call.wait_for_answer()
        assert (told.value.status, told.value.code, told.value.retry) == (503, "unavailable", True)
        here.models.script = type(here.models).counted
        again = await here.call(by=caller(retry=True))
        assert again.call_id == call.call_id and (await again.wait_for_answer()).text == "answer 1"


async def test_a_halt_holds_a_call_back_and_the_planner_hears_of_it_and_of_its_end():
    async with world() as here:
        held = True

        async def halted(models, message, request):
            if held:
                return models.put_off(request, after_ms=60_000, paused=True, code="halted", reason="ann says stop")
            return await models.counted(message, request)

        here.models.script = halted
        call = await here.call()
        await until(lambda: here.planner.paused)
        assert (here.planner.paused[0].active, here.planner.paused[0].reason) == (True, "ann says stop")
        held = False
        task, body = call.run_spending.task, CallResumed(call_id=call.call_id)
        await here.mesh.context("model_gateway").publisher.send("doors", body, tenant=TENANT, task=task, cause="lift")
        assert (await call.wait_for_answer()).text == "answer 1"
        await until(lambda: len(here.planner.paused) == 2)
        assert not here.planner.paused[1].active


@pytest.mark.parametrize(("code", "expected"), [("halted", "halted"), ("budget_exceeded", "refused_by_budget")])
async def test_a_call_that_is_held_back_for_long_is_refused_and_the_run_ends_by_what_held_it(code, expected):
    async with world(hold_s=0.2, idle_s=0.6) as here:

        async def held(models, message, request):
            return models.put_off(request, after_ms=60_000, paused=True, code=code, reason="no more")

        here.models.script = held
        for _ in range(2):
            call = await here.call()
            with pytest.raises(DoorRefusal) as told:
                await call.wait_for_answer()
            assert (told.value.status, told.value.code, told.value.retry) == (403, expected, False)
        assert len(here.gateway.requested) == 1, "no other run is opened"
        await until(lambda: here.planner.finished)
        failure = here.planner.finished[0][1].failure
        assert (failure.code, failure.message) == (expected, "no more")


async def test_a_run_that_is_ended_in_mid_call_tells_its_callers_why():
    async with world() as here:
        here.models.away = True
        call = await here.call()
        await here.planner.end(
            call.run_spending.task, "cancelled", Failure.from_text("cancelled", "ann no longer wants it")
        )
        with pytest.raises(DoorRefusal) as told:
            async with asyncio.timeout(5):
                await call.wait_for_answer()
        assert (told.value.status, told.value.code) == (403, "cancelled")


async def test_a_lost_poke_costs_a_second_at_most(monkeypatch):
    async with world() as here:
        await here.mesh.start("doors", "1")
        for instance in ("0", "1"):
            monkeypatch.setattr(here.doors(instance)._pokes, "_handled", lambda *_: None)
        began = asyncio.get_running_loop().time()
        texts = await asyncio.gather(*(here.answer(f"q {n}", instance=str(n % 2)) for n in range(8)))
        assert len(set(texts)) == 8 and asyncio.get_running_loop().time() - began < 6


async def test_messages_of_a_run_are_those_that_the_catalog_names():
    async with world() as here:
        await here.answer()
        for one in await here.mesh.messages(subjects.inbox_stream("doors")):
            assert catalog.is_allowed(one.ce_type, one.sender, "doors")
