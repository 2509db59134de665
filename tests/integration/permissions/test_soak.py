"""A broker that runs for weeks: questions over account borders must not pile up in it.

Every request over an import with `response_type: stream` stays in the exporter's `responses` while the subscription
that gets the answers lives (FACTS: 150,000 requests, +123 MB). Two things bound it: the adapter renews its inbox, and
the rendered exports give each question an end.
"""

import asyncio
import time

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead_contracts import subjects
from tests.integration.permissions.broker import Broker, running

REQUESTS = 20_000
AT_ONCE = 32
SECONDS_MAX = 20.0
RESPONSES_MAX = 2_500
RSS_GROWTH_MAX_BYTES = 16 * 1024 * 1024


async def test_twenty_thousand_requests_leave_little_behind(tmp_path):
    async with running(tmp_path) as broker:
        bus = await JetStreamBus.connect(broker.url, service="worker", nkey_seed=broker.seed("worker"))
        try:
            await _ask(bus, 2_000)
            rss, started = broker.rss(), time.monotonic()
            peak = 0
            for _ in range(10):
                await _ask(bus, REQUESTS // 10)
                peak = max(peak, await broker.responses())
            took_s, growth = time.monotonic() - started, broker.rss() - rss
        finally:
            await bus.close()
        assert took_s < SECONDS_MAX
        assert peak < RESPONSES_MAX
        assert growth < RSS_GROWTH_MAX_BYTES
        await _until_forgotten(broker)


async def test_a_client_that_never_renews_is_bounded_by_the_exports(tmp_path):
    """Somebody else's client, or a hostile one, keeps one inbox for ever: the broker forgets on its own."""
    async with running(tmp_path, threshold="1s") as broker, broker.client("worker") as client:
        for _ in range(3_000 // 100):
            asked = [await client.ask("JSMESH.API.DIRECT.GET.INBOX_WORKER", b'{"seq": 1}') for _ in range(100)]
            await asyncio.wait_for(asyncio.gather(*asked), 10)
        assert await broker.responses() > 1_000  # The subscription lives, so they are remembered at first.
        await _until_forgotten(broker)


async def _ask(bus: JetStreamBus, count: int) -> None:
    filter_ = subjects.task_filter("worker", "demo", "none")

    async def some(number: int) -> None:
        for _ in range(number):
            assert await bus.read("INBOX_WORKER", filter_) == []

    await asyncio.gather(*(some(count // AT_ONCE) for _ in range(AT_ONCE)))


async def _until_forgotten(broker: Broker) -> None:
    async with asyncio.timeout(10):
        while await broker.responses() > 50:
            await asyncio.sleep(0.1)
