"""The same mesh, in containers: the demo is right; replicas come and go, the broker restarts, cables are pulled,
no step is lost or doubled."""

import asyncio
import json
from pathlib import Path

import pytest

from bulkhead.runtime.settings import ServiceSettings
from bulkhead_infra.docker.stack import run_docker
from bulkhead_infra.nats.streams import ACK_WAIT_S
from tests.e2e.containers.field import Count, Field, answers_the_demo, load

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAKEN_WITHIN_S = 60.0
DROP_JOURNAL = """
import asyncio, pathlib
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead_infra.identity import keys, rights

async def drop():
    folder = pathlib.Path("/bulkhead/identity")
    bus = await JetStreamBus.connect(
        "tls://nats:4222", service="provisioner", nkey_seed=keys.nkey_seed(folder, "provisioner"),
        inbox_prefix=rights.inbox_prefix("provisioner"), ca_file=folder / "ca.pem")
    answer = await bus.request(rights.API + "STREAM.DELETE.JOURNAL", b"", timeout_s=10)
    assert b'"success":true' in answer.body.replace(b" ", b""), answer.body
    await bus.close()

asyncio.run(drop())
"""
LAG = """
import json, urllib.request
with urllib.request.urlopen("http://127.0.0.1:8222/jsz?acc=MESH&consumers=true", timeout=5) as answer:
    streams = json.load(answer)["account_details"][0]["stream_detail"]
durables = [one for stream in streams if stream["name"] == "INBOX_WORKER" for one in stream["consumer_detail"]]
in_hand = sum(one["num_ack_pending"] for one in durables)
print(json.dumps({"waits": in_hand + sum(one["num_pending"] for one in durables), "in_hand": in_hand}))
"""
MEMORY = """
lines = open("/proc/1/status").read().splitlines()
print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")))
"""
PILE, GROWS_MAX_MIB = 8, 64
SLOTS = ServiceSettings().slots
CUT = ("tool_executor", "worker")


async def test_the_demo_is_answered_rightly(field: Field, tmp_path: Path) -> None:
    async with field.client() as client:
        await answers_the_demo(client, 7, tmp_path)


async def test_workers_come_and_go_and_no_step_is_lost_or_doubled(field: Field) -> None:
    async with field.client() as client:
        async with field.counter.held() as arrived:
            tasks = [await Count(field, client).submit() for _ in range(8)]
            # In the middle of a step: its write stands at the gate while the replicas change.
            await arrived()
            await asyncio.to_thread(field.stack.scale_service, "worker", 4)
            assert len(field.stack.running_containers_of("worker")) == 4
        more = [await Count(field, client).submit() for _ in range(4)]
        await asyncio.to_thread(field.stack.scale_service, "worker", 1)
        assert len(field.stack.running_containers_of("worker")) == 1
        for task in (*tasks, *more):
            await task.ends_rightly()


async def test_the_broker_and_redis_are_restarted_under_load(field: Field) -> None:
    """The journal is lost meanwhile: `upkeep` finds that when the broker has started again, and has it made of the
    inboxes."""
    upkeep = field.stack.running_containers_of("upkeep")[0]
    async with field.client() as client:
        async with load(field, client) as tasks:
            dropped = await asyncio.to_thread(field.stack.exec_in_container, upkeep, "python3", "-c", DROP_JOURNAL)
            assert dropped.returncode == 0, dropped.stderr
            for name in ("nats", "redis"):
                before = len(tasks)
                await asyncio.to_thread(field.stack.restart_service, name)
                # Load all the time: since the last restart tasks went in.
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    while len(tasks) == before:
                        await asyncio.sleep(0.05)
        for task in tasks:
            await task.ends_rightly()
    async with asyncio.timeout(TAKEN_WITHIN_S):
        while "the journal is rebuilt from the inboxes" not in field.stack.read_logs("upkeep"):
            await asyncio.sleep(0.5)


async def test_services_that_are_cut_off_from_the_broker_go_on_afterwards(field: Field) -> None:
    """As when a cable is pulled: nobody is told. A write is under way at one end, its step is folded at the other."""
    network = field.stack.network_name("bus")
    cut = [field.stack.running_containers_of(name)[0] for name in CUT]
    async with field.client() as client:
        async with field.counter.held() as arrived:
            tasks = [await Count(field, client).submit() for _ in range(3)]
            await arrived()
            for one in cut:
                run_docker("network", "disconnect", network, one)
        try:
            # Each has noticed: it says that it is not ready.
            async with asyncio.timeout(TAKEN_WITHIN_S):
                while any(field.stack.is_ready(one) for one in cut):
                    await asyncio.sleep(0.2)
        finally:
            for one in cut:
                run_docker("network", "connect", network, one)
        for task in tasks:
            await task.ends_rightly()
        await asyncio.to_thread(field.stack.wait_until_ready, CUT)


async def test_a_worker_that_stands_still_holds_but_little_and_catches_up(field: Field) -> None:
    """A slow consumer: what is said to it waits in its inbox, on disk. It has no more of it in hand than it may, and
    the broker hardly more in memory than before; when it goes on, what was handed to it twice is done once."""
    worker = field.stack.running_containers_of("worker")[0]
    async with field.client() as client:
        async with field.counter.held() as arrived:
            tasks = [await Count(field, client).submit() for _ in range(2)]
            await arrived()
            run_docker("pause", worker)
        try:
            before = await asyncio.to_thread(_memory_mib, field)
            tasks += [await Count(field, client).submit() for _ in range(PILE)]
            async with asyncio.timeout(TAKEN_WITHIN_S):
                while (lag := await asyncio.to_thread(_waiting_for_the_worker, field))["waits"] < len(tasks):
                    await asyncio.sleep(0.2)
            # Longer than the broker waits for an acknowledgement: it has handed out again what it could.
            await asyncio.sleep(1.5 * ACK_WAIT_S)
            lag = await asyncio.to_thread(_waiting_for_the_worker, field)
            assert lag["in_hand"] <= SLOTS and lag["waits"] >= len(tasks), lag
            assert await asyncio.to_thread(_memory_mib, field) - before < GROWS_MAX_MIB
        finally:
            run_docker("unpause", worker)
        for task in tasks:
            await task.ends_rightly()
        async with asyncio.timeout(TAKEN_WITHIN_S):
            while (await asyncio.to_thread(_waiting_for_the_worker, field))["waits"]:
                await asyncio.sleep(0.2)


def _waiting_for_the_worker(field: Field) -> dict[str, int]:
    """waits: messages of its inbox that it has not acknowledged; in_hand: those of them that it was handed."""
    said = field.stack.exec_in_container(field.stack.running_containers_of("nats")[0], "python3", "-c", LAG)
    assert said.returncode == 0, said.stderr
    found: dict[str, int] = json.loads(said.stdout)
    return found


def _memory_mib(field: Field) -> float:
    """What the broker itself has, without the pages of its files."""
    said = field.stack.exec_in_container(field.stack.running_containers_of("nats")[0], "python3", "-c", MEMORY)
    return float(said.stdout)


async def test_a_killed_container_comes_back_by_itself(field: Field) -> None:
    async with field.client() as client:
        async with field.counter.held() as arrived:
            task = await Count(field, client).submit()
            await arrived()
            container = field.stack.running_containers_of("tool_executor")[0]
            # From inside, as a crash: what `docker kill` ends, Docker does not start again.
            field.stack.exec_in_container(container, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        await task.ends_rightly()
        await asyncio.to_thread(field.stack.wait_until_ready, ["tool_executor"])


async def test_a_key_is_rotated_while_the_mesh_runs(field: Field) -> None:
    read = ("cat", "/bulkhead/identity/worker.nkey")
    before = field.stack.exec_in_container(field.stack.running_containers_of("worker")[0], *read).stdout
    async with field.client() as client:
        field.stack.run_compose("run", "--rm", "-T", "--no-deps", "provision-keys", "rotate", "worker")
        async with field.counter.held() as arrived:
            task = await Count(field, client).submit()
            await arrived()
            field.stack.run_compose("kill", "-s", "HUP", "nats")
            restarting = asyncio.create_task(asyncio.to_thread(field.stack.restart_service, "worker"))
        await restarting
        await task.ends_rightly()
    after = field.stack.exec_in_container(field.stack.running_containers_of("worker")[0], *read).stdout
    assert before and after and before != after
