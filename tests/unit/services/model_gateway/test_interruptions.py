"""What ends a call from outside: fallback, refusals, full places, halts, crashes."""

import asyncio
import time

import pytest

from bulkhead.runtime.halts.live import HaltTarget
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, CallDeferred
from bulkhead_contracts.quota import Quota
from bulkhead_services.model_gateway.effects import HttpProvider, Network
from bulkhead_services.model_gateway.providers.port import CallNeed
from bulkhead_services.model_gateway.settings import ProviderSettings, Settings
from tests.unit.services.model_gateway.gateway_desk import PRICED, Desk, deltas, desk, until
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, chunk, fails, says


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


# Fallback


def routes(second: str) -> dict:
    return {
        "providers": {"second": {"base_url": second, "api_key": "k2"}},
        "routes": {"default": {"model": PRICED, "fallback": {"model": PRICED, "provider": "second"}}},
    }


async def test_an_outage_falls_back_and_says_so(provider):
    provider.will(fails(503))
    async with ScriptedProvider() as other, desk(provider, provider_attempts=2, **routes(other.url)) as d:
        other.will(says("from the second"))
        reply = await d.answered()
        said = "offline-rules-1 at second answered in place of offline-rules-1 at openai (provider_error)"
        assert reply.standing == "degraded" and reply.standing_reason == said
        assert reply.provider == "second" and reply.provider_attempts == 3
        assert other.asked[0].headers["authorization"] == "Bearer k2"


async def test_a_slow_first_leaves_time_for_the_fallback(provider):
    async def silent(x: Exchange) -> None:
        await x.hung_up()

    provider.will(silent)
    async with ScriptedProvider() as other, desk(provider, **routes(other.url)) as d:
        other.will(says("in time"))
        reply = await d.answered(d.request(deadline_unix_ms=d.now_ms() + 1_000))
        assert reply.standing == "degraded" and "deadline_too_short" in reply.standing_reason


async def test_what_is_no_outage_does_not_fall_back(provider):
    provider.will(fails(400, "your tool schema is wrong"))
    async with ScriptedProvider() as other, desk(provider, **routes(other.url)) as d:
        reply = await d.ask()
        assert reply.outcome == "failed" and not other.asked


async def test_when_both_are_out_both_are_named(provider):
    provider.will(fails(503, "first down"))
    async with ScriptedProvider() as other, desk(provider, provider_attempts=1, **routes(other.url)) as d:
        other.will(fails(500, "second down"))
        reply = await d.ask()
        assert "first down" in reply.failure.message and "second down" in reply.failure.message


# Refusals


async def test_no_price_no_call(provider):
    provider.will(says("x"))
    async with desk(provider, unchecked={"model": "nobody-knows-1"}) as d:
        reply = await d.ask()
        assert reply.outcome == "refused" and reply.failure.code == "unknown_price" and not provider.asked


async def test_a_free_model_is_called_and_still_reserved(provider):
    provider.will(says("x"))
    async with desk(provider, model="my-own-1", free_models=("my-own-1",)) as d:
        reply = await d.answered()
        assert reply.usage.cost_usd_micros == 0 and reply.usage.input_tokens == 100 and reply.price_digest == "free"
        assert len(d.purse.asked) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tier": "genius"}, "unknown_route"),
        ({"prompt_id": "no.such"}, "unknown_prompt"),
        ({"prompt_id": "worker.step@99"}, "unknown_prompt"),
        ({"step_id": "other"}, "bad_grant"),
    ],
)
async def test_requests_that_cannot_be_served_are_refused(provider, change, code):
    provider.will(says("x"))
    async with desk(provider) as d:
        reply = await d.ask(d.request(**change))
        assert reply.outcome == "refused" and reply.failure.code == code and reply.failure.hint
        assert not provider.asked and not d.purse.asked


async def test_a_worker_needs_its_step_grant_and_a_planner_does_not(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        assert (await d.ask(d.request(), grant=d.grant(None))).failure.code == "bad_grant"
        assert (await d.ask(d.request(call_id="c2"), "planner", grant=d.grant(None))).outcome == "answered"


async def test_a_refused_reservation_after_a_failed_attempt_keeps_what_was_spent(provider):
    async def cut(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half"}))
        await x.end()

    provider.will(cut)
    async with desk(provider) as d:
        d.purse.decisions = ["reserved", "refused"]
        reply = await d.ask()
        assert reply.outcome == "refused" and reply.failure.code == "refused_by_budget"
        assert reply.usage.cost_usd_micros > 0 and reply.provider_attempts == 1


async def test_without_a_free_place_the_call_is_deferred(provider):
    held = asyncio.Event()

    async def holds(x: Exchange) -> None:
        await held.wait()
        await says("late")(x)

    provider.will(holds)
    async with desk(provider, provider_concurrency=1, slot_wait_s=0.1) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        second = await d.ask(d.request(call_id="c2"))
        assert isinstance(second, CallDeferred) and second.call_id == "c2" and second.after_ms > 0
        assert len(d.purse.asked) == 1, "no money is held while waiting for a place"
        held.set()
        assert (await d.replies(2))[1].outcome == "answered"


async def test_a_call_that_is_abandoned_while_it_waits_for_a_place_reserves_and_sends_nothing(provider):
    held, gone = asyncio.Event(), asyncio.Event()

    async def holds(x: Exchange) -> None:
        await held.wait()
        await says("late")(x)

    provider.will(holds)
    async with desk(provider, provider_concurrency=1, slot_wait_s=5) as d:
        component = d.mesh.running["model_gateway", "0"].service.component
        component._abandoned_calls.event_of = lambda job: gone if job.request.call_id == "c2" else asyncio.Event()
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        await d.send(d.request(call_id="c2"))
        await until(lambda: asyncio.sleep(0, component.pools()["openai"].demand), lambda wanted: wanted == 2)
        gone.set()
        held.set()
        [_, second] = await d.replies(2)
        assert (second.outcome, second.failure.code, second.provider_attempts) == ("refused", "abandoned", 0)
        assert len(d.purse.asked) == 1 and len(provider.asked) == 1


async def test_who_waits_for_a_place_when_the_replica_drains_is_put_off_at_once(provider):
    """What is begun then is cut when the replica's time is over, and paid for."""
    held = asyncio.Event()

    async def holds(x: Exchange) -> None:
        await held.wait()
        await says("late")(x)

    provider.will(holds)
    async with desk(provider, provider_concurrency=1, slot_wait_s=60) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        await d.send(d.request(call_id="c2"))
        service = d.mesh.running["model_gateway", "0"].service
        places = next(iter(service.component._routes.values())).primary.provider._all[0].places
        await until(lambda: asyncio.sleep(0, places._waiting), bool)
        service.drain()
        put_off = next(one for one in await d.replies(1) if one.call_id == "c2")
        assert isinstance(put_off, CallDeferred) and len(d.purse.asked) == 1
        held.set()


async def test_a_place_that_becomes_free_goes_to_the_tenant_that_holds_the_fewest():
    """And not to who stands first in line: one tenant's hundred slow calls are not to be another one's waiting."""
    provider = HttpProvider("p", ProviderSettings(base_url="http://127.0.0.1:1", concurrency=2), Network())
    need = CallNeed("m", 1)
    begun, over = [], {name: asyncio.Event() for name in ("many1", "many2", "many3", "many4", "one")}

    async def call(name: str) -> None:
        async with provider.hold_place(name.rstrip("1234"), 10, need):
            begun.append(name)
            await over[name].wait()

    calls = [asyncio.create_task(call(name)) for name in over]
    for name in over:
        await until(lambda: asyncio.sleep(0, begun), lambda found: len(found) == 2)
        assert begun == ["many1", "many2"], name
    over["many1"].set()
    await until(lambda: asyncio.sleep(0, begun), lambda found: len(found) == 3)
    assert begun[2] == "one"
    for event in over.values():
        event.set()
    await asyncio.gather(*calls)
    assert begun[3:] == ["many3", "many4"]


async def test_an_eighth_of_the_places_is_kept_from_each_tenant():
    """A hundred long answers that began at once would keep another tenant waiting until the first of them is whole."""
    provider = HttpProvider("p", ProviderSettings(base_url="http://127.0.0.1:1", concurrency=16), Network())
    places = provider._all[0].places
    assert [await places.acquire_slot("many", 0) for _ in range(16)] == [True] * 14 + [False] * 2
    assert (
        await places.acquire_slot("one", 0)
        and await places.acquire_slot("two", 0)
        and not await places.acquire_slot("three", 0)
    )


def test_the_line_before_the_places_is_longer_than_one_tenants_tasks():
    """Else another tenant's calls would not come to stand in it."""
    settings = Settings()
    assert settings.slots >= Quota().running + settings.provider_concurrency


# Halts


async def test_a_halt_cuts_the_stream_and_tells_what_is_charged(provider):
    cut = asyncio.Event()

    async def script(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "word " * 30}))
        assert await x.hung_up()
        cut.set()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        await d.send(d.request())
        await deltas(live, "word " * 30)
        await d.halt()
        reply = (await d.replies(1))[0]
        assert reply.outcome == "refused" and reply.failure.code == "halted"
        assert "raise the limit" in reply.failure.hint and " is halted and the model's stream was cut: " in (
            reply.failure.message
        ), "who reads it is told why"
        await asyncio.wait_for(cut.wait(), 5)
        (settled,) = await d.settled(1)
        worst, used = d.purse.asked[0].worst_case, settled.usage
        assert used == used.as_estimate() and 50 <= used.output_tokens < 200 and settled.failed == "halted"
        assert 0 < used.cost_usd_micros < worst.cost_usd_micros
        assert reply.usage == used, "whoever adds up replies must find what the ledger charged"
        again = (await d.ask(d.request(call_id="c2"))).failure
        assert again.code == "halted" and again.hint and len(provider.asked) == 1


async def test_a_pause_cuts_the_stream_and_the_call_is_made_anew_when_it_is_lifted(provider):
    cut = asyncio.Event()

    async def script(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "word " * 30}))
        assert await x.hung_up()
        cut.set()

    provider.will(script, says("done"))
    async with desk(provider) as d:
        live = await d.live()
        await d.send(d.request())
        await deltas(live, "word " * 30)
        await d.halt("model", PRICED, pauses=True)
        (put_off,) = await d.replies(1)
        assert isinstance(put_off, CallDeferred) and put_off.paused and "enough" in put_off.reason
        await asyncio.wait_for(cut.wait(), 5)
        (settled,) = await d.settled(1)
        assert settled.usage == settled.usage.as_estimate(), "what was cut is charged by what came"
        await d.halt("model", PRICED, pauses=True, active=False)
        await until(lambda: asyncio.sleep(0, _halted(d, PRICED)), lambda found: found is None)
        reply = await d.answered()
        assert len(provider.asked) == 2 and reply.usage.model_calls == 1
        cut_cost, cost = [settled.usage.cost_usd_micros for settled in await d.settled(2)]
        assert put_off.usage.cost_usd_micros == cut_cost > 0, "told once, when it is put off"
        assert reply.usage.cost_usd_micros == cost > 0


async def test_a_halt_ends_the_pause_between_attempts(provider):
    provider.will(fails(429, retry_after="8"))
    async with desk(provider) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        began = time.monotonic()
        await d.halt()
        assert (await d.replies(1))[0].failure.code == "halted" and time.monotonic() - began < 4


async def test_a_halted_model_is_not_called(provider):
    provider.will(says("x"))
    async with desk(provider, model="my.own-1", free_models=("my.own-1",)) as d:
        await d.halt("model", "my-own-1")
        await until(lambda: asyncio.sleep(0, _halted(d, "my-own-1")), bool)
        assert (await d.ask()).failure.code == "halted" and not provider.asked


async def trip(d: Desk, model: str, open_ms: int) -> None:
    """As the owner of breakers writes it down; returns when the gateway has it."""
    now = d.now_ms()
    body = Breaker(
        scope="model",
        tenant="demo",
        name=model,
        phase="open",
        reason="10 of 10 calls failed",
        since_unix_ms=now,
        until_unix_ms=now + open_ms,
    )
    key = subjects.breaker_key("model", "demo", model)
    await d.mesh.context("budget").bus.publish(key, body.model_dump_json().encode(), {}, f"trip-{model}-{open_ms}")
    found = d.mesh.running[("model_gateway", "0")].service.handler._halts._breakers
    await until(lambda: asyncio.sleep(0, found.get(("model", "demo", model))), lambda one: one == body)


async def test_a_model_whose_breaker_is_open_is_not_called_and_its_call_waits(provider):
    provider.will(says("x"))
    async with desk(provider, model="big", free_models=("big",)) as d:
        await trip(d, "big", 60_000)
        put_off = await d.ask()
        assert isinstance(put_off, CallDeferred) and put_off.paused and 50_000 < put_off.after_ms <= 60_000
        assert "10 of 10 calls failed" in put_off.reason and not provider.asked
        await trip(d, "big", 0)
        assert (await d.answered()).outcome == "answered" and len(provider.asked) == 1, "a trial"


async def test_the_fallback_answers_at_once_for_a_model_whose_breaker_is_open(provider):
    async with ScriptedProvider() as other:
        other.will(says("from the other one"))
        two = routes(other.url)
        two["routes"]["default"]["model"] = "big"
        async with desk(provider, free_models=("big",), **two) as d:
            await trip(d, "big", 60_000)
            reply = await d.answered()
            assert reply.standing == "degraded" and "breaker_open" in reply.standing_reason and not provider.asked


def _halted(d: Desk, model: str) -> object:
    service = d.mesh.running[("model_gateway", "0")].service
    return service.handler._halts.find(HaltTarget("demo", "t1", model=model))


# Crashes and waiting


async def test_a_gateway_that_dies_in_a_call_is_succeeded_under_a_new_reservation(provider):
    async def hangs(x: Exchange) -> None:
        await x.hung_up()

    provider.will(hangs, says("by the second"))
    async with desk(provider, ack_wait_ms=300) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        d.mesh.kill_replica("model_gateway")
        await d.mesh.start("model_gateway")
        assert await d.text((await d.replies(1))[0].content) == "by the second"
        assert len({one.reservation_id for one in d.purse.asked}) == 2


async def test_a_call_that_waits_for_money_in_the_middle_is_asked_again_with_new_reservations(provider, monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.doer.reservations.BUDGET_PATIENCE_S", 0.05)
    provider.will(fails(500), says("x"))
    async with desk(provider) as d:
        d.purse.decisions = ["reserved", *["wait"] * 20]
        assert isinstance(await d.ask(), CallDeferred)
        used = {one.reservation_id for one in d.purse.asked}
        d.purse.decisions = []
        await d.answered()
        assert d.purse.asked[-1].reservation_id not in used, "an id that was settled cannot pay again"
