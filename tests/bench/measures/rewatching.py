"""How long budget's watcher is blind after a kill -9: from the mark and the tail of a long journal on a real broker.

In: recorded histories, as many tasks as make a journal of N messages. Out: figures. `python -m
tests.bench.measures.rewatching
[--messages N] [--living N]`: a million messages take some minutes, nearly all of them for the filling.
"""

import argparse
import asyncio
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nats

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead.http_server.tcp_ports import free_port
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.decider.history_file import load_history
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.server import NatsServer
from bulkhead_infra.nats.streams import Layout, stream_configs
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.watch.fold import WatchMark
from bulkhead_services.budget.watch.watcher import MARK_NAME, Watcher
from tests.bench.accounting import cpu_s
from tests.bench.measures.watching import journal
from tests.paths import HISTORIES

ACCOUNTS = """accounts { MESH { jetstream: enabled, users: [ { user: "filler", password: "filler" } ] } }
no_auth_user: filler
"""
PENDING = 2_000
BEGUN = 8
"""Messages of a task that only began."""
MAX_BEGIN_S = 2.0


async def fill(url: str, messages: Iterator[StoredMessage], count: int, living: int) -> None:
    """Tasks that have ended, or nearly all; before them `living` tasks that only began."""
    client = await nats.connect(url)
    for config in stream_configs(Layout()):
        body = json.dumps(config).encode()
        answer = await client.request(f"$JS.API.STREAM.CREATE.{config['name']}", body, timeout=30)
        assert "error" not in json.loads(answer.data), answer.data
    stream = client.jetstream(publish_async_max_pending=PENDING)
    begun = next(
        found[:BEGUN] for path in sorted(HISTORIES.glob("*.jsonl*")) if len(found := load_history(path).messages) > 40
    )
    first = (
        StoredMessage(f"{one.subject.rsplit('.', 2)[0]}.living-{number}.-", one.headers, one.body, 0, 0)
        for number in range(living)
        for one in begun
    )
    for one in itertools.islice(itertools.chain(first, messages), count):
        parts = one.subject.split(".")
        subject = subjects.mesh_subject(parts[1], parts[2], parts[4], parts[5])
        headers = {key: value for key, value in one.headers.items() if not key.lower().startswith("nats-")}
        await stream.publish_async(subject, one.body, headers=headers, wait_stall=60)
    await asyncio.wait_for(stream.publish_async_completed(), 120)
    while json.loads((await client.request("$JS.API.STREAM.INFO.JOURNAL", b"{}")).data)["state"]["messages"] < count:
        await asyncio.sleep(0.2)
    await client.close()


def watcher(bus: JetStreamBus, store: MemoryStore) -> Watcher:
    """One that leads at once and stops nothing."""

    async def halt(*_: object) -> None:
        raise AssertionError("it stops nothing")

    return Watcher(
        bus,
        Publisher("budget", bus, b"bench", unix_ms),
        store,
        unix_ms,
        halt,
        mark_ledger_lost=print,
        on_message=lambda stored: None,
        holder="bench",
        interval_s=0.2,
        halts_tasks=False,
        thresholds=DEFAULT,
        message_key=b"bench",
    )


async def measure(folder: Path, count: int, living: int) -> dict[str, float]:
    """Fill, fold it all once, forget everything but the mark, begin again."""
    plan = ServerPlan(folder / "nats", free_port(), free_port(), durability="process")
    server = NatsServer(plan, ACCOUNTS, dict(os.environ))
    await server.start()
    try:
        began = time.monotonic()
        await fill(plan.url, journal(), count, living)
        filled_s = time.monotonic() - began
        bus = await JetStreamBus.connect(plan.url, service="budget", js_prefix="$JS.API")
        store = MemoryStore(lease_ms=600_000)
        first = watcher(bus, store)
        began = time.monotonic()
        await first._begin_fold()
        await first._read_on()
        whole_s = time.monotonic() - began
        await store.put_value(MARK_NAME, first.fold.make_mark().encode())
        mark = WatchMark.decode(await store.get_value(MARK_NAME))
        again = watcher(bus, store)
        assert server.child is not None
        began, cpu, broker = time.monotonic(), time.process_time(), cpu_s([server.child.pid])
        await again._begin_fold()
        await again._read_on()
        begin_s, begin_cpu_s = time.monotonic() - began, time.process_time() - cpu
        begin_broker_cpu_s = cpu_s([server.child.pid]) - broker
        assert again._last is not None and first._last is not None and again._last.sequence >= count
        lost = {one.id for one in first.fold.due.values() if one.lineage in mark.living} - set(again.fold.due)
        lives = [name for name in mark.living if "/living-" in name]
        assert len(lives) == living, mark
        assert [again.fold.watch.stalls.outstanding_keys(name) for name in lives] == [
            first.fold.watch.stalls.outstanding_keys(name) for name in lives
        ], "something else is outstanding"
        await bus.close()
    finally:
        await server.stop()
    return {
        "journal_messages": count,
        "filled_s": round(filled_s, 1),
        "folded_whole_s": round(whole_s, 1),
        "living": len(mark.living),
        "mark_bytes": len(mark.encode()),
        "begin_s": round(begin_s, 2),
        "begin_cpu_s": round(begin_cpu_s, 2),
        "begin_broker_cpu_s": round(begin_broker_cpu_s, 2),
        "begin_folded": again.fold.folded,
        "due_before": len(first.fold.due),
        "due_not_found_again": len(lost),
        "max_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    """1 when it takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--living", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), asked.messages, asked.living))
    print(json.dumps({**found, "max_begin_s": MAX_BEGIN_S}))
    return int(found["begin_s"] > MAX_BEGIN_S)


if __name__ == "__main__":
    raise SystemExit(main())
