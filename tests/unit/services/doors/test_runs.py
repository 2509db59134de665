"""Runs of outside agents: one is opened at the first call, found again, followed by the next one, ended."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bulkhead.runtime.consume.inbound import read_message
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import AllowanceReplied
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim, TaskRejected
from bulkhead_services.doors.app import build
from bulkhead_services.doors.feed import INBOX, RunFeed
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings
from bulkhead_services.gateway.admission.rules import unreadable_reason
from tests.eventually import until
from tests.unit.services.doors.doors_world import CLAIM, PERSON, TENANT, asked, caller, world

pytestmark = pytest.mark.virtual_time


async def test_the_first_call_opens_a_run_and_the_second_is_made_in_it():
    async with world() as here:
        first = await here.call("What is 2 + 2?", by=caller(agent="My Agent", feature="search", workflow="w 1"))
        assert (await first.wait_for_answer()).text == "answer 1"
        assert first.run_spending.spent_usd_micros == 100, "with the answer comes what it cost"
        second = await here.call("What is 2 + 2?", "And 3 + 3?")
        assert (await second.wait_for_answer()).text == "answer 2"
        [(task, request)] = here.gateway.requested
        assert first.run_spending.task == second.run_spending.task == task and task.startswith("doors-")
        assert request.objective == "What is 2 + 2?" and request.requester == CLAIM
        assert (request.check, request.replan, request.feature, request.workflow) == (False, "none", "search", "w-1")
        [step] = request.plan.steps
        assert (step.role, step.adopted) == ("my_agent", True)
        assert second.run_spending.spent_usd_micros == 200


async def test_an_answer_tells_what_is_left_under_any_limit_and_nothing_where_that_is_not_known():
    async with world() as here:
        first = await here.call("a")
        await first.wait_for_answer()
        assert (first.run_spending.left_usd_micros, first.run_spending.left_tokens) == (None, None), "nobody knows"
    async with world(budget=AllowanceReplied(known=True, tokens=180)) as here:
        here.models.away = True
        call = await here.call("a")
        assert (call.run_spending.left_usd_micros, call.run_spending.left_tokens) == (None, 180)
        here.models.away = False
        await call.wait_for_answer()
        assert call.run_spending.left_tokens == 180 - 15, "with the answer comes what it used"
        second = await here.call("b")
        await second.wait_for_answer()
        assert second.run_spending.left_tokens == 180 - 30, "of what the run itself spends budget is not asked again"
        assert here.budget.answered == 1


async def test_words_that_no_objective_may_hold_open_a_run_too():
    async with world() as here:
        for said, kept in (
            ("\x1b[31mred\x1b[0m\nlog\x00", "[31mred [0m\nlog"),
            ("\u200b \u200d", "A run of an outside agent"),
            ("\x07" * 600 + "far", "far"),
        ):
            await here.call(said, by=caller(run=repr(said)[:50]))
            objective = here.gateway.requested[-1][1].objective
            assert objective == kept and not unreadable_reason(objective)


async def test_calls_of_other_sessions_and_of_other_people_have_runs_of_their_own():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ben = RequesterClaim(tenant="demo", person="ben", role="submitter", via="api_key")
    async with world() as here:
        calls = [
            await here.call(),
            await here.call(by=caller(run="r1")),
            await here.call(session="r1"),
            await here.call(by=caller(traceparent=parent)),
            await here.call(by=caller(claim=ben)),
        ]
        assert len({call.run_spending.task for call in calls}) == 5
        again = await here.call(by=caller(run="r1", traceparent=parent), session="another")
        assert again.run_spending.task == calls[1].run_spending.task, "a name that the caller chose comes first"


async def test_a_limit_that_an_open_run_does_not_have_is_refused():
    async with world() as here:
        first = await here.call(by=caller(limit_tokens=500))
        again = await here.call("more", by=caller(limit_tokens=500, limit_usd_micros=10**12))
        assert again.run_spending.task == first.run_spending.task
        with pytest.raises(DoorRefusal) as refused:
            await here.call("more", by=caller(limit_tokens=499))
        assert (refused.value.code, refused.value.field) == ("limit_too_late", "X-Bulkhead-Limit-Tokens")
        with pytest.raises(DoorRefusal):
            await here.call("more", by=caller(task=first.run_spending.task, limit_usd_micros=1))
        await here.call("more", by=caller(run="own", limit_tokens=499))
        assert here.gateway.requested[-1][1].limits.tokens == 499


async def test_many_first_calls_at_once_open_one_run():
    async with world() as here:
        calls = await asyncio.gather(*(here.call(f"question {n}") for n in range(10)))
        assert len({call.run_spending.task for call in calls}) == len(here.gateway.requested) == 1
        assert len({(await call.wait_for_answer()).text for call in calls}) == 10


async def test_two_replicas_open_the_same_run():
    async with world() as here:
        await here.mesh.start("doors", "1")
        calls = await asyncio.gather(*(here.call(f"q {n}", instance=str(n % 2)) for n in range(6)))
        assert len({call.run_spending.task for call in calls}) == 1
        assert len({(await call.wait_for_answer()).call_id for call in calls}) == 6
        assert len({want.replica for want in here.gateway.wanted}) == 1, "who did not open it says so"


async def test_limits_are_the_tenants_or_narrower(tmp_path):
    rows = "{demo: {task: {cost_usd_micros: 900, tokens: 800, deadline_ms: 7000}}}"
    (tmp_path / "tenants.yaml").write_text(f"tenants: {rows}")
    async with world(tenants_file=tmp_path / "tenants.yaml", run_deadline_s=60) as here:
        await here.answer(by=caller(run="a"))
        await here.answer(by=caller(run="b", limit_usd_micros=10, limit_tokens=10**6, deadline_ms=5_000))
        [first, second] = [request.limits for _, request in here.gateway.requested]
        assert (first.cost_usd_micros, first.tokens, first.deadline_ms) == (900, 800, 7_000)
        assert (second.cost_usd_micros, second.tokens, second.deadline_ms) == (10, 800, 5_000)


async def test_a_run_is_named_by_its_id_and_another_persons_is_as_if_it_were_not_there():
    async with world() as here:
        call = await here.call(by=caller(run="r1"))
        task = call.run_spending.task
        again = await here.call("more", by=caller(task=task))
        assert again.run_spending.task == task
        other = RequesterClaim(tenant="acme", person=PERSON, role="submitter", via="api_key")
        ben = RequesterClaim(tenant="demo", person="ben", role="submitter", via="api_key")
        for stranger in (other, ben):
            with pytest.raises(DoorRefusal) as told:
                await here.call(by=caller(claim=stranger, task=task))
            with pytest.raises(DoorRefusal) as ended:
                await here.doors().end_run(caller(claim=stranger), task)
            assert [(one.value.status, one.value.code) for one in (told, ended)] == [(404, "no_such_run")] * 2
        with pytest.raises(DoorRefusal, match="you have no run doors-nothing"):
            await here.call(by=caller(task="doors-nothing"))
        with pytest.raises(DoorRefusal, match="you have no run"):
            await here.call(by=caller(task="no token. at all"))


async def test_a_run_that_its_caller_ends_has_its_last_answer_and_the_next_call_opens_another():
    async with world() as here:
        first = await here.call()
        await first.wait_for_answer()
        await here.doors().end_run(caller(), first.run_spending.task)
        await here.doors().end_run(caller(), first.run_spending.task)
        [(task, finished)] = here.planner.finished
        assert task == first.run_spending.task and finished.failure is None and finished.result.content is not None
        assert await here.mesh.context("doors").blobs.get_text("demo", finished.result.content) == "answer 1"
        assert (finished.usage.model_calls, finished.usage.cost_usd_micros) == (1, 100)
        second = await here.call()
        assert second.run_spending.task != task and len(here.gateway.requested) == 2
        with pytest.raises(DoorRefusal) as told:
            await here.call(by=caller(task=task))
        assert (told.value.status, told.value.code, told.value.retry) == (403, "run_ended", False)


async def test_an_idle_run_ends_and_one_with_a_call_in_flight_does_not():
    async with world(idle_s=0.4, call_timeout_s=5) as here:
        call = await here.call()
        await call.wait_for_answer()
        await until(lambda: here.planner.finished)
        assert (await here.call("again")).run_spending.task != call.run_spending.task

    async with world(idle_s=0.3) as here:
        here.models.away = True
        call = await here.call()
        await asyncio.sleep(1.0)
        assert here.planner.finished == []
        here.models.away = False
        assert (await call.wait_for_answer()).text == "answer 1"


async def test_a_run_with_a_call_that_waits_for_a_person_is_not_idle():
    until_unix_ms = 0

    async def asked_of_a_person(models, message, request):
        nonlocal until_unix_ms
        until_unix_ms = models.context.clock() + 2_000
        why = {"paused": True, "code": "approval_wanted", "after_ms": 60_000, "until_unix_ms": until_unix_ms}
        return models.put_off(request, **why)

    async with world(idle_s=0.4, hold_s=0.1) as here:
        here.models.script = asked_of_a_person
        with pytest.raises(DoorRefusal):
            await here.answer()
        await until(lambda: here.planner.finished)
        assert here.mesh.context("doors").clock() >= until_unix_ms
        assert here.planner.finished[0][1].failure.code == "no_answer", "a person's silence is no halt"


async def test_a_run_with_a_call_in_flight_at_another_replica_does_not_end():
    async with world(idle_s=2.0) as here:
        await here.mesh.start("doors", "1")
        await here.answer()
        await asyncio.sleep(1.2)
        here.models.away = True
        call = await here.call("more", instance="1")
        await asyncio.sleep(1.6)
        assert here.planner.finished == []
        here.models.away = False
        assert (await call.wait_for_answer()).text == "answer 2"


async def test_a_run_without_an_answer_that_has_ended_is_followed_by_the_next_at_once():
    async def unknown(models, message, request):
        return models.refused(request, "unknown_route", "there is no such model")

    async with world() as here:
        here.models.script = unknown
        first = await here.call()
        with pytest.raises(DoorRefusal, match="no such model"):
            await first.wait_for_answer()
        await here.doors().end_run(caller(), first.run_spending.task)
        assert here.planner.finished[0][1].failure.code == "no_answer"
        assert (await here.call()).run_spending.task != first.run_spending.task


async def test_a_run_whose_replica_is_gone_is_ended_by_another_or_after_a_restart():
    for survivor in ("1", "0"):
        async with world(idle_s=0.3, call_timeout_s=0.5) as here:
            if survivor == "1":
                await here.mesh.start("doors", "1")
            await here.answer()
            if survivor == "1":
                # A notice is sent once, soon after: who dies before it leaves the run to its deadline, or to a restart.
                await until(lambda: here.doors("1")._ends._watched)
            here.mesh.kill_replica("doors", "0")
            if survivor == "0":
                await here.mesh.start("doors", "0")
            await until(lambda: here.planner.finished)


async def test_the_newest_run_of_a_session_is_found_again_after_a_restart():
    async with world() as here:
        tasks = []
        for _ in range(6):
            call = await here.call()
            await call.wait_for_answer()
            tasks.append(call.run_spending.task)
            await here.doors().end_run(caller(), tasks[-1])
        last = (await here.call()).run_spending.task
        here.mesh.kill_replica("doors")
        await here.mesh.start("doors")
        assert (await here.call("x")).run_spending.task == last and len(set(tasks)) == 6


@pytest.mark.parametrize("code", ["budget_exceeded", "halted", "cancelled", "deadline_exceeded"])
async def test_a_run_that_was_stopped_is_not_begun_again_at_once(code):
    async with world(idle_s=1.0) as here:
        by = caller(run="r")
        call = await here.call(by=by)
        await call.wait_for_answer()
        await here.planner.end(call.run_spending.task, "halted", Failure.from_text(code, "enough is enough"))
        with pytest.raises(DoorRefusal) as told:
            await here.call("more", by=by)
        expected = "refused_by_budget" if code == "budget_exceeded" else code
        assert (told.value.status, told.value.code, told.value.retry) == (403, expected, False)
        assert "enough is enough" in told.value.message and "X-Bulkhead-Run" in told.value.hint
        assert await here.answer("another", by=caller(run="r2")) == "answer 2"
        await asyncio.sleep(1.1)
        assert (await here.call("more", by=by)).run_spending.task != call.run_spending.task


async def test_a_session_without_a_name_goes_on_in_the_next_run_when_the_time_of_one_is_nearly_over(monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.ends.LEFT_MS", 1)
    async with world(run_deadline_s=1.2, idle_s=30, call_timeout_s=1) as here:
        first = await here.call()
        await first.wait_for_answer()
        await asyncio.sleep(1.0)
        second = await here.call("more")
        assert second.run_spending.task != first.run_spending.task
        await until(lambda: here.planner.finished, timeout_s=20)
        assert here.planner.finished[0][0] == first.run_spending.task


async def test_a_session_without_a_name_does_not_step_over_a_run_that_is_held_back():
    async def held(models, message, request):
        return models.put_off(request, after_ms=60_000, paused=True, code="budget_exceeded", reason="no more")

    async with world(run_deadline_s=1.6, idle_s=30, hold_s=0.1) as here:
        here.models.script = held
        for pause_s in (1.3, 0):
            with pytest.raises(DoorRefusal, match="no more"):
                await here.answer()
            await asyncio.sleep(pause_s)
        [(task, _)] = here.gateway.requested
        await here.planner.end(task, "failed", Failure.from_text("deadline_exceeded", "it was held back"))
        with pytest.raises(DoorRefusal, match="it was held back"):
            await here.answer()


async def test_a_run_has_so_many_calls_and_no_more(monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.runs.MAX_CALLS", 2)
    async with world() as here:
        for number in range(2):
            await here.answer(f"q {number}", by=caller(run="r"))
        for by in (caller(run="r"), caller(task=here.gateway.requested[0][0])):
            with pytest.raises(DoorRefusal) as told:
                await here.answer("q 2", by=by)
            assert (told.value.status, told.value.code) == (403, "run_is_full")


async def test_a_run_that_the_mesh_rejects_is_refused_by_name_and_tried_anew_later(monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.runs.REJECTED_AGAIN_MS", 300)
    async with world() as here:
        here.gateway.rejection = TaskRejected(code="limit_above_policy", message="too much", hint="ask for less")
        for _ in range(3):
            with pytest.raises(DoorRefusal) as told:
                await here.call()
            assert (told.value.status, told.value.code, told.value.hint) == (403, "limit_above_policy", "ask for less")
        assert len(here.gateway.requested) == 1 and await here.blobs() == 0
        await asyncio.sleep(0.4)
        here.gateway.rejection = None
        assert await here.answer() == "answer 1"


async def test_a_mesh_that_does_not_open_a_run_is_waited_for_and_told_as_unavailable():
    async with world(open_wait_s=0.3) as here:
        here.gateway.away = True
        with pytest.raises(DoorRefusal) as told:
            await here.call()
        assert (told.value.status, told.value.retry) == (503, True) and told.value.retry_after_s
        here.gateway.away = False
        assert await here.answer() == "answer 1" and len(here.gateway.requested) == 1


async def test_the_objective_is_what_a_person_said_first():
    rows = (
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hi " * 400}]},
    )
    async with world() as here:
        await here.doors().begin_model_call(caller(), asked(messages=rows))
        assert here.gateway.requested[0][1].objective == ("hi " * 400)[:500]
        await here.doors().begin_model_call(caller(run="x"), asked(messages=({"role": "system", "content": "x"},)))
        assert here.gateway.requested[1][1].objective == "A run of an outside agent"


def test_an_idle_time_that_ends_runs_in_mid_call_is_refused_at_the_start():
    with pytest.raises(ValueError, match=r"BULKHEAD_IDLE_S \(60\) is below BULKHEAD_CALL_TIMEOUT_S \(300\)"):
        build(SimpleNamespace(), Settings(idle_s=60))


async def test_a_reply_counts_as_it_is_delivered_without_reading_the_inbox_again(monkeypatch):
    async with world() as here:
        reads: list[int] = []
        bus = here.doors()._context.bus
        read = bus.read

        async def counted_read(stream, subject, after=0, limit=256):
            reads.append(after)
            return await read(stream, subject, after, limit)

        monkeypatch.setattr(bus, "read", counted_read)
        await here.answer("a")
        reads.clear()
        call = await here.call("b")
        await call.wait_for_answer()
        assert len(reads) == 1 and call.run_spending.spent_usd_micros == 200, "read once, before the call"


async def test_what_another_replica_may_have_been_served_is_read_before_a_delivery_counts():
    async with world() as here:
        for text in ("a", "b", "c", "d"):
            call = await here.call(text)
            await call.wait_for_answer()
        task, bus = call.run_spending.task, here.doors()._context.bus

        class Followed:
            """Shows what was stored until then."""

            shown = 0

            async def read(self, stream, subject, after=0, limit=256):
                return [row for row in await bus.read(stream, subject, after, limit) if row.sequence <= self.shown]

        inbox, feed = Followed(), RunFeed(bus, TENANT, task)
        feed._bus = inbox
        rows = await bus.read(INBOX, subjects.task_filter("doors", TENANT, task))
        *_, a, b, c, d = (read_message(row, "doors") for row in rows)
        spent = []
        for message, epoch in ((a, 7), (b, 7), (d, 8)):
            inbox.shown = 0 if message is b else message.sequence
            assert await feed.take_delivery(replace(message, epoch=epoch))
            spent.append(feed.usage.cost_usd_micros)
        assert spent == [100, 200, 400], "c was not delivered here"
        assert await feed.take_delivery(replace(c, attempts=2, epoch=8)) and feed.usage.cost_usd_micros == 400
