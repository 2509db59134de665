"""Backup and restore of a mesh in Kubernetes as its page says: from the chart's broker, with the keys of `keys`.

The broker runs on the files of its ConfigMap and Secret; 127.0.0.1 is the port-forward.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskRequested
from bulkhead_infra.backup.stream_copies import open_backup_connection
from bulkhead_infra.docker import provisioner
from bulkhead_infra.identity import keys, policy
from bulkhead_infra.kubernetes import chart, key_folder
from bulkhead_infra.nats.configuration import CONF_FILE
from bulkhead_infra.nats.provision import ProvisionReport, provision
from bulkhead_infra.nats.server import find_nats_server
from tests.eventually import until
from tests.integration.broker.bare_broker import bus_of
from tests.unit.infra.kubernetes.rendered import installation, named

PUBLISHER, INBOX = "pub_demo", subjects.inbox_stream("gateway")
HEADERS = {"ce-type": TaskRequested.ce_type(), "ce-id": "1", "ce-source": PUBLISHER}


@asynccontextmanager
async def broker(made: Path, folder: Path) -> AsyncIterator[str]:
    """Its address, under the name that a port-forward has."""
    folder.mkdir()
    port, monitor = free_port(), free_port()
    for file, text in named(installation("dev"), "ConfigMap", "bulkhead-broker")["data"].items():
        for before, after in ((chart.IDENTITY, folder), (chart.DATA, folder), ("4222", port), ("8222", monitor)):
            text = text.replace(str(before), str(after))
        (folder / file).write_text(text)
    for one in key_folder.render_secrets(made):
        if one["metadata"]["name"] == "bulkhead-nats":
            for file, text in one["stringData"].items():
                (folder / file).write_text(text)
        elif one["metadata"]["name"] == key_folder.TLS_SECRET:
            for key, file in (("ca.crt", "ca.pem"), ("tls.crt", "broker.pem"), ("tls.key", "broker.key")):
                (folder / file).write_text(one["stringData"][key])
    with (folder / "log").open("wb") as log:
        command = (str(find_nats_server()), "-c", str(folder / CONF_FILE))
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env={"BULKHEAD_BROKER": "nats-0"}
        )
    try:

        async def ready() -> bool:
            return process.returncode is not None or "Server is ready" in (folder / "log").read_text()

        await until(ready, "the broker is ready")
        assert process.returncode is None, (folder / "log").read_text()
        yield f"tls://localhost:{port}"
    finally:
        process.terminate()
        await process.wait()


def environment() -> Mapping[str, str]:
    """Variables of the Job that makes streams, in the example `dev`."""
    maps = [named(installation("dev"), "ConfigMap", f"bulkhead-{name}")["data"] for name in ("settings", "streams")]
    return {**maps[0], **maps[1]}


async def streams(made: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> ProvisionReport:
    """The Job's work."""
    with monkeypatch.context() as patched:
        for name, value in environment().items():
            patched.setenv(name, value)
        layout = provisioner.stream_layout()
    seed = keys.nkey_seed(made / "provisioner", policy.PROVISIONER)
    return await provision(url, seed, layout, ca_file=made / "all" / "ca.pem")


def bulkhead(*words: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "bulkhead_cli.main", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_backup_of_one_cluster_is_restored_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, file = tmp_path / "keys", tmp_path / "mesh.bulkhead"
    key_folder.ensure_key_folder(made, "single")
    given = ("--identity", str(made / "all"), "--callers", str(made / "operator"))
    async with broker(made, tmp_path / "one") as url:
        assert (await streams(made, url, monkeypatch)).made
        async with bus_of(url, made / "all", PUBLISHER, ca_file=made / "all" / "ca.pem") as bus:
            for number in range(3):
                subject = subjects.mesh_subject(PUBLISHER, "gateway", "demo", f"{PUBLISHER}-{number}")
                await bus.publish(subject, b"{}", HEADERS, f"m{number}")
        *_, done = await asyncio.to_thread(bulkhead, "backup", str(file), "--nats", url, *given)
    assert done["messages"] and INBOX in str(done["streams"])
    # Somebody's key, of whom the new cluster's Secrets know because the folder of keys is the same.
    digests = (made / "operator" / "api_keys.json").read_text()
    async with broker(made, tmp_path / "two") as url:
        *_, done = await asyncio.to_thread(bulkhead, "restore", str(file), "--nats", url, *given)
        assert done["event"] == "done" and done["shards"] == {"planner": 8, "worker": 8, "checker": 8}
        report = await streams(made, url, monkeypatch)
        assert report.made == [], "the Job finds what it would make"
        assert report.changed, "the Job's store is smaller: streams were changed beside their sources"
        async with open_backup_connection(url, made / "all") as looking:
            found = await looking.stream_info(INBOX)
        assert found is not None and found["config"]["sources"][0]["opt_start_seq"] == 4, "nothing is fetched again"
        *_, again = await asyncio.to_thread(bulkhead, "backup", str(tmp_path / "again.bulkhead"), "--nats", url, *given)
    assert again["streams"] == done["streams"]
    assert (made / "operator" / "api_keys.json").read_text() == digests
