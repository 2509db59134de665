"""The provisioner and a broker that reads its accounts again: it drops connections and knows nobody for a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead_contracts import subjects
from bulkhead_infra.identity import keys, policy
from bulkhead_infra.nats import provision as provisioning
from bulkhead_infra.nats import stream_sizes, streams
from bulkhead_infra.nats.provision import ProvisionError, provision
from bulkhead_infra.nats.server import ServerPlan
from bulkhead_infra.nats.streams import Layout, durable_configs, event_durable_configs, stream_configs
from tests.integration.broker.bare_broker import bare_broker, bus_of

LAYOUT = Layout({"worker": 4})
HELLO, REFUSED = b"", b"-ERR 'Authorization Violation'\r\n"
ASKED = (b"STREAM.CREATE.INBOX_PLANNER ", b"STREAM.CREATE.JOURNAL ", b"CONSUMER.CREATE.INBOX_WORKER.worker-2 ")
"""One connection after another ends: before a word, with one, and when this was asked: done, and the answer lost."""


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[tuple[ServerPlan, str]]:
    """A broker of this mesh, and the provisioner's seed."""
    async with bare_broker(folder, LAYOUT.shards) as server:
        yield server.plan, keys.nkey_seed(folder / "identity", policy.PROVISIONER)


async def test_what_was_made_stands_and_the_rest_is_made_over_another_connection(tmp_path: Path) -> None:
    breaks = [HELLO, REFUSED, *ASKED]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mark = breaks.pop(0) if breaks else None
        if mark == HELLO:
            writer.transport.abort()
            return
        back, there = await asyncio.open_connection("127.0.0.1", plan.port)
        if mark == REFUSED:
            writer.write(await back.readline())
            await reader.readline()
            writer.write(REFUSED)
            writer.close()
            return
        answers = asyncio.create_task(_pass_on(back, writer))
        asked = b""
        while data := await reader.read(65536):
            there.write(data)
            await there.drain()
            asked += data
            if mark and mark in asked:
                writer.transport.abort()
        answers.cancel()
        there.close()

    async with broker(tmp_path) as (plan, seed):
        wire = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"nats://127.0.0.1:{wire.sockets[0].getsockname()[1]}"
        report = await provision(url, seed, LAYOUT)
        assert breaks == []
        wanted = {one["name"] for one in stream_configs(LAYOUT)} | {
            f"{name}/{one['name']}" for name, one in durable_configs(LAYOUT)
        }
        wanted |= {f"{subjects.EVENTS_STREAM}/{one['name']}" for one in event_durable_configs(LAYOUT)}
        assert report.made and set(report.made) <= wanted, "what stands without its answer is not told as made"
        again = await provision(plan.url, seed, LAYOUT)
        assert (again.made, again.changed) == ([], [])
        wire.close()


@pytest.mark.parametrize(("share", "goes_on"), [(15, True), (40, False)])
async def test_an_upgrade_that_divides_the_store_otherwise_leaves_a_full_stream_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, goes_on: bool
) -> None:
    """share: of the texts in the version before; a large one stands for a store that was made smaller."""
    for module in (stream_sizes, provisioning):
        monkeypatch.setattr(module, "GIB", 2**20)
    now = Layout(LAYOUT.shards, store_gib=8)
    texts = subjects.BLOBS_STREAM
    async with broker(tmp_path) as (plan, seed):
        with monkeypatch.context() as before:
            before.setitem(stream_sizes.SHARE_PERCENT, texts, share)
            await provision(plan.url, seed, now)
        bound = 8 * 2**20 * share // 100
        async with bus_of(plan.url, tmp_path / "identity", "planner") as bus:
            for number in range(int(bound * 0.97) // 50_000):
                await bus.publish(f"blob.planner.demo.{number:064x}", b"x" * 50_000, {}, f"b{number}")
            if not goes_on:
                with pytest.raises(ProvisionError, match=r"BLOBS holds .* give more \(--store-gib, .*\), or purge"):
                    await provision(plan.url, seed, now)
            else:
                report = await provision(plan.url, seed, now)
                assert "BLOBS keeps its bound of 1.20 GiB" in report.kept[texts] and "is 1.04 now" in report.kept[texts]
                await bus.publish(f"blob.planner.demo.{'f' * 64}", b"x" * 20_000, {}, "after")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def test_a_subscriber_whose_row_changes_keeps_its_place_and_is_told_by_the_new_row(tmp_path: Path) -> None:
    async with broker(tmp_path) as (plan, seed):
        url = f"nats://127.0.0.1:{plan.port}"
        await provision(url, seed, LAYOUT)
        [(name, row)] = LAYOUT.subscribers.items()
        fewer = row.model_copy(update={"events": ("task.ended",)})
        report = await provision(url, seed, replace(LAYOUT, subscribers={name: fewer}))
        assert not report.made and [one.partition(":")[0] for one in report.changed] == [f"EVENTS/{name}"]
        assert not (await provision(url, seed, replace(LAYOUT, subscribers={name: fewer}))).changed


async def test_a_store_of_another_format_is_refused_by_name_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with broker(tmp_path) as (plan, seed):
        monkeypatch.setattr(streams, "STORE_FORMAT", 3)
        await provision(plan.url, seed, LAYOUT)
        monkeypatch.undo()
        with pytest.raises(ProvisionError, match="this store has format 3 and this version of bulkhead reads format 2"):
            await provision(plan.url, seed, LAYOUT)
        monkeypatch.setattr(streams, "STORE_FORMAT", 3)
        monkeypatch.setattr(provisioning, "STORE_FORMAT", 3)
        report = await provision(plan.url, seed, LAYOUT)
        assert not report.made and not report.changed
