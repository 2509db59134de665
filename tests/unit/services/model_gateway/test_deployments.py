"""Several keys and addresses of one provider: load, limits of rates, health. Over real sockets, and on a clock."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from bulkhead_services.model_gateway.providers.port import CallNeed, ModelAnswer, ProviderFault
from bulkhead_services.model_gateway.routing import deployments
from bulkhead_services.model_gateway.routing.deployments import Deployment, Deployments
from bulkhead_services.model_gateway.routing.rate_limits import buckets_of_headers
from tests.unit.services.model_gateway.gateway_desk import PRICED, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, fails, says


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


def by_key(**scripts: Any):
    """Answers each key by its own script."""

    async def script(x: Exchange) -> None:
        await scripts[_key(x)](x)

    return script


def _key(x: Exchange) -> str:
    return x.headers["authorization"].removeprefix("Bearer ")


def keys(provider: ScriptedProvider, *given: str, **more: Any) -> dict[str, Any]:
    return {
        "providers": {"p": {"base_url": provider.url, "api_keys": given, **more}},
        "routes": {"default": {"model": PRICED, "provider": "p"}},
    }


def told(text: str, **headers: str):
    """Streams an answer with these headers."""

    async def script(x: Exchange) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{lines}transfer-encoding: chunked\r\n\r\n"
        begin = x.begin
        x.begin = lambda kind="": x.raw(head.encode())  # type: ignore[method-assign]
        await says(text)(x)
        x.begin = begin  # type: ignore[method-assign]

    return script


# Over a socket


async def test_a_429_on_one_key_moves_to_the_next_at_once(provider):
    provider.will(by_key(a=fails(429, retry_after="30"), b=says("from b")))
    async with desk(provider, **keys(provider, "a", "b")) as d:
        began = time.monotonic()
        replies = [await d.answered(d.request(call_id=f"c{number}")) for number in range(4)]
        assert time.monotonic() - began < 5 and all(one.standing == "ok" for one in replies)
        asked = Counter(_key(x) for x in provider.asked)
        assert asked == {"a": 1, "b": 4}, "for 30 s the key that refused is not asked again"
        assert sum(one.waited_ms for one in replies) < 1_000, "no key was waited for"


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_a_bad_key_or_a_failure_moves_to_the_next_key(provider, status):
    provider.will(by_key(a=fails(status, "no"), b=says("from b")))
    async with desk(provider, **keys(provider, "a", "b")) as d:
        for number in range(6):
            await d.answered(d.request(call_id=f"c{number}"))
        tries = Counter(_key(x) for x in provider.asked)["a"]
        assert tries == (1 if status != 503 else deployments.FAILURES_TO_EJECT), "then it is ejected"


async def test_all_keys_refused_waits_for_the_one_that_is_free_first(provider):
    waits = {"a": "60", "b": "0.3"}
    refused: set[str] = set()

    async def script(x: Exchange) -> None:
        if _key(x) in refused:
            await says(f"from {_key(x)}")(x)
        else:
            refused.add(_key(x))
            await fails(429, retry_after=waits[_key(x)])(x)

    provider.will(script)
    async with desk(provider, **keys(provider, "a", "b")) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "from b" and 250 <= reply.waited_ms < 5_000
        assert reply.waited_for.startswith("p after rate_limited")


async def test_an_address_that_is_down_is_passed_over(provider):
    provider.will(says("up"))
    down = "http://127.0.0.1:1/v1"
    row = {"base_urls": [down, provider.url], "api_key": "k"}
    async with desk(provider, providers={"p": row}, routes={"default": {"model": PRICED, "provider": "p"}}) as d:
        replies = [await d.answered(d.request(call_id=f"c{number}")) for number in range(8)]
        assert len(provider.asked) == 8
        assert sum(one.provider_attempts for one in replies) == 8 + deployments.FAILURES_TO_EJECT


async def test_calls_are_spread_over_keys_by_load(provider):
    held = asyncio.Event()

    async def holds(x: Exchange) -> None:
        await held.wait()
        await says("x")(x)

    provider.will(holds)
    async with desk(provider, **keys(provider, "a", "b", "c", concurrency=4)) as d:
        for number in range(9):
            await d.send(d.request(call_id=f"c{number}"))
        async with asyncio.timeout(10):
            while len(provider.asked) < 9:
                await asyncio.sleep(0.01)
        assert Counter(_key(x) for x in provider.asked) == {"a": 3, "b": 3, "c": 3}
        held.set()
        await d.replies(9)


async def test_a_limit_that_headers_tell_is_kept_before_any_429(provider):
    spent = {"x_ratelimit_limit_requests": "100", "x_ratelimit_remaining_requests": "0"}
    provider.will(by_key(a=told("a", **spent, x_ratelimit_reset_requests="6m0s"), b=says("b")))
    async with desk(provider, **keys(provider, "a", "b")) as d:
        for number in range(5):
            await d.answered(d.request(call_id=f"c{number}"))
        assert Counter(_key(x) for x in provider.asked)["a"] == 1


async def test_every_key_is_scrubbed_from_what_a_provider_says(provider):
    async def echoes(x: Exchange) -> None:
        await fails(503, f"your key {_key(x)} is fine, we are not")(x)

    provider.will(echoes)
    async with desk(provider, **keys(provider, "secret-one", "secret-two"), provider_attempts=1) as d:
        reply = await d.ask()
        assert "secret-" not in reply.model_dump_json() and "[redacted]" in reply.failure.message


# On a clock


class Endpoint:
    """Answers what it is told to."""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, 0
        self.said: ModelAnswer | ProviderFault = ModelAnswer("x", (), "stop", None, "m", "")
        self.gate: asyncio.Event | None = None

    async def call(
        self, outgoing: Any, on_text: Any, on_headers: Any, *, timeout_s: float, progress: Any = None
    ) -> ModelAnswer | ProviderFault:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        return self.said


class Pool:
    """Deployments on a clock that the test moves."""

    def __init__(self, count: int) -> None:
        self.now_s = 1_000.0
        self.ends = [Endpoint(f"p #{number}") for number in range(count)]
        self.rows = [Deployment(end, 8, lambda: self.now_s) for end in self.ends]
        self.all = Deployments(self.rows, lambda: self.now_s)

    async def ask(self, need: CallNeed | None = None) -> str:
        """One call; returns the deployment that it went to."""
        need = need or CallNeed("m", 10)
        async with self.all.hold_place("t", 1.0, need) as place:
            await place.call(None, None, need, timeout_s=1.0)  # type: ignore[arg-type]
        return place.name


DOWN = ProviderFault("provider_error", "status 503", retryable=True, outage=True, consumed=False)


async def test_what_fails_is_ejected_then_tried_with_one_call_and_longer_each_time():
    pool = Pool(2)
    bad, good = pool.ends
    bad.said = DOWN
    for _ in range(20):
        await pool.ask()
    assert bad.asked == deployments.FAILURES_TO_EJECT
    pool.now_s += deployments.FIRST_EJECTION_S
    bad.gate = asyncio.Event()
    trial = asyncio.create_task(pool.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bad.asked == deployments.FAILURES_TO_EJECT + 1, "the one that was used longest ago is asked"
    assert {await pool.ask() for _ in range(4)} == {good.name}, "one trial at a time"
    bad.gate.set()
    await trial
    pool.now_s += deployments.FIRST_EJECTION_S
    assert {await pool.ask() for _ in range(4)} == {good.name}, "twice as long now"
    pool.now_s += deployments.FIRST_EJECTION_S
    bad.said = good.said
    assert {await pool.ask() for _ in range(4)} == {bad.name, good.name}


async def test_when_all_are_ejected_they_are_asked_all_the_same():
    pool = Pool(2)
    for end in pool.ends:
        end.said = DOWN
    for _ in range(10):
        await pool.ask()
    assert sum(end.asked for end in pool.ends) == 10


async def test_a_limit_holds_for_its_model_alone():
    pool = Pool(1)
    (end,) = pool.ends
    end.said = ProviderFault("rate_limited", "no", retryable=True, outage=True, retry_after_s=20.0)
    await pool.ask()
    assert pool.all.wait_s(CallNeed("m", 1), 100) == 20.0 and pool.all.wait_s(CallNeed("other", 1), 100) == 0.0
    pool.now_s += 20
    assert pool.all.wait_s(CallNeed("m", 1), 100) == 0.0


@pytest.mark.parametrize(
    ("headers", "tokens", "wait_s"),
    [
        ({"limit-requests": "60", "remaining-requests": "0", "reset-requests": "1m0s"}, 1, 1.0),
        ({"limit-requests": "60", "remaining-requests": "1", "reset-requests": "59s"}, 1, 0.0),
        ({"limit-tokens": "6000", "remaining-tokens": "1000", "reset-tokens": "50s"}, 2_000, 10.0),
        ({"limit-tokens": "6000", "remaining-tokens": "1000", "reset-tokens": "50s"}, 10**9, 50.0),
        ({"limit-tokens": "100", "remaining-tokens": "0", "reset-tokens": "6h"}, 10**9, 60.0),
        ({"limit-tokens": "100", "remaining-tokens": "0", "reset-tokens": "soon"}, 1, 0.0),
        ({"limit-tokens": "0", "remaining-tokens": "0", "reset-tokens": "6s"}, 1, 0.0),
        ({"limit-tokens": "10", "remaining-tokens": "-3", "reset-tokens": "6s"}, 1, 0.0),
        ({"limit-tokens": "10", "remaining-tokens": "99", "reset-tokens": "6s"}, 1, 0.0),
        ({}, 1, 0.0),
    ],
)
def test_buckets_fill_evenly_until_their_reset(headers, tokens, wait_s):
    found = buckets_of_headers({f"x-ratelimit-{name}": value for name, value in headers.items()}, 5.0)
    needs = {"requests": 1, "tokens": tokens}
    assert max((one.wait_s(needs[kind], 5.0) for kind, one in found.items()), default=0.0) == pytest.approx(wait_s)


def test_anthropics_limits_are_read_against_its_own_clock():
    headers = {
        "date": "Mon, 23 Nov 2026 10:00:00 GMT",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-23T10:00:30Z",
    }
    assert buckets_of_headers(headers, 0.0)["input-tokens"].wait_s(1_000, 10.0) == pytest.approx(20.0)


async def test_what_was_sent_counts_until_the_next_answer_tells():
    pool = Pool(1)
    pool.rows[0].state_of("m").buckets = buckets_of_headers(
        {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "30", "x-ratelimit-reset-tokens": "70s"},
        1_000.0,
    )
    assert pool.all.wait_s(CallNeed("m", 20), 100) == 0.0
    await pool.ask(CallNeed("m", 20))
    assert pool.all.wait_s(CallNeed("m", 20), 100) > 0.0
    assert pool.all.wait_s(CallNeed("m", 20), 0.001) == 0.0, "a guess holds no call past its time"
