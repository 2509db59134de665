"""`bulkhead doctor --kubernetes` with a real kubectl before a local server that answers as an API server does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from bulkhead_cli.cluster.doctor import Place, examine
from bulkhead_cli.operate.finding import Finding
from bulkhead_cli.output import Stop
from bulkhead_infra.kubernetes import images
from tests.eventually import until
from tests.unit.bulkhead_cli.cluster.api_server import ApiServer
from tests.unit.bulkhead_cli.cluster.healthy import lists

WITHIN_S = 25.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """kubectl keeps what it discovers below HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def server(home: Path) -> Iterator[ApiServer]:
    found = lists("production")
    # Times of the fixture are of its own clock.
    found["certificates"] = []
    for pod in found["pods"]:
        for status in pod["status"].get("containerStatuses", ()):
            status["state"] = {"running": {}}
    with ApiServer(found).running() as made:
        yield made


async def look(server: ApiServer, folder: Path, timeout_s: float = 10.0, **place: Any) -> dict[str, Finding]:
    found = await examine(Place(kubeconfig=server.kubeconfig(folder), **place), timeout_s)
    assert "a-token-of-mine" not in str(found) and {method for method, _ in server.asked} <= {"GET"}
    return {one.what: one for one in found if one.level != "ok"}


@pytest.mark.slow
async def test_a_mesh_that_is_well_is_read_whole_and_nothing_is_written(server: ApiServer, home: Path) -> None:
    assert await look(server, home, context="here") == {}
    assert len(server.lists["pods"]) > 20, "several pages"
    assert any("continue=20" in path for _, path in server.asked)
    assert not any("watch" in path or "log" in path for _, path in server.asked)


@pytest.mark.slow
async def test_what_is_refused_absent_or_silent_is_told_each_by_itself(server: ApiServer, home: Path) -> None:
    server.statuses = {"secrets": 403, "/api/v1/nodes": 403, "services": 503}
    for gone in ("scaledobjects", "certificates", "metrics"):
        del server.lists[gone]
    server.hangs = {"limitranges"}
    found = await look(server, home, timeout_s=1.0)
    assert "may not list nodes, secrets" in found["rights"].detail
    assert found["KEDA"].level == found["metrics"].level == "problem"
    assert "as the test wants it" in found["services"].detail
    assert found["limitranges"].level == "warning"
    assert set(found) == {"rights", "KEDA", "metrics", "services", "limitranges"}


@pytest.mark.slow
async def test_a_namespace_that_is_not_there(server: ApiServer, home: Path) -> None:
    found = await look(server, home, namespace="other")
    assert set(found) == {"namespace"} and "there is no namespace other" in found["namespace"].detail
    server.statuses = {"other": 403}
    found = await look(server, home, namespace="other")
    assert "may not list namespaces" in found["rights"].detail


@pytest.mark.slow
async def test_a_cluster_that_is_silent_is_given_up_in_time(server: ApiServer, home: Path) -> None:
    server.hangs = {"/version"}
    began = time.monotonic()
    found = await look(server, home, timeout_s=1.0)
    assert time.monotonic() - began < WITHIN_S
    assert set(found) == {"cluster"} and "takes connections and is silent" in found["cluster"].todo


@pytest.mark.slow
async def test_a_login_program_that_does_not_end_is_ended_with_what_it_started(
    server: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkhead_cli.cluster.kubectl.EXTRA_S", 2.0)
    config, pid = server.kubeconfig(home), home / "pid"
    found = yaml.safe_load(config.read_text())
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never"}
    found["users"][0]["user"] = {"exec": run | {"args": ["-c", f"echo $$ > {pid}; sleep 600"]}}
    # kubectl logs in over TLS alone.
    found["clusters"][0]["cluster"]["server"] = server.url.replace("http:", "https:")
    config.write_text(yaml.safe_dump(found))
    (finding,) = await examine(Place(kubeconfig=config), 2.0)
    assert finding.level == "problem" and "did not end within 4 s" in finding.detail

    async def ended() -> bool:
        return not psutil.pid_exists(int(pid.read_text()))

    await until(ended, "the login program has ended")


async def test_a_login_that_is_not_accepted(server: ApiServer, home: Path) -> None:
    server.statuses = {"/version": 401}
    found = await look(server, home)
    assert set(found) == {"cluster"} and "log in again" in found["cluster"].todo


@pytest.mark.needs("kubectl")
async def test_no_kubectl_no_kubeconfig_no_context_no_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def only(**place: Any) -> Finding:
        (found,) = await examine(Place(**place))
        assert found.level == "problem"
        return found

    none = await only()
    assert "there is no kubeconfig" in none.detail and "KUBECONFIG or --kubeconfig" in none.todo
    server = ApiServer({})
    server.http.server_close()
    config = server.kubeconfig(home)
    assert "nowhere" in (await only(kubeconfig=config, context="nowhere")).detail
    gone = await only(kubeconfig=config)
    assert gone.what == "cluster" and server.url in gone.detail and "may this machine reach it" in gone.todo
    monkeypatch.setenv("PATH", str(home))
    assert "install kubectl" in (await only(kubeconfig=config)).todo


async def test_an_answer_that_is_too_large_is_not_kept(
    server: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkhead_cli.cluster.kubectl.MAX_BYTES", 1024 * 1024)
    server.lists["events"] = [{"metadata": {"name": "x"}, "message": "y" * 2_000_000}]
    assert "more than 1 MiB" in (await look(server, home))["events"].detail


async def test_names_that_cannot_be_meant(home: Path) -> None:
    with pytest.raises(Stop, match=r"images.sha256 cannot be read"):
        await examine(Place(overlay=home))
    (home / "images.sha256").write_text("kind: [")
    with pytest.raises(Stop, match="not as a release has it"):
        await examine(Place(overlay=home))
    with pytest.raises(Stop, match=r"there is no kubeconfig .*none"):
        await examine(Place(kubeconfig=home / "none"))
    with pytest.raises(Stop, match="is no name"):
        await examine(Place(namespace="../kube-system"))


@pytest.mark.slow
def test_the_command_prints_findings_and_ends_with_one_for_a_problem(server: ApiServer, home: Path) -> None:
    overlay = home / "overlay"
    overlay.mkdir()
    (overlay / images.LIST_FILE).write_text(f"{'cd' * 32}  registry.example.org/mesh/worker:v1\n")
    options = ["--kubeconfig", str(server.kubeconfig(home)), "--context", "here", "--overlay", str(overlay)]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bulkhead_cli.main", "doctor", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))

    done = run("--kubernetes", *options, "--json")
    assert done.returncode == 1, done.stderr
    rows = {one["what"]: one for one in json.loads(done.stdout)}
    assert rows["cluster"] == {"what": "cluster", "level": "ok", "detail": "Kubernetes v1.35.2", "todo": ""}
    assert rows["worker"]["level"] == "problem" and "sha256:cdcdcd" in rows["worker"]["detail"]
    shown = run("--kubernetes", *options[:4]).stdout
    assert "✓ cluster Kubernetes v1.35.2" in shown and "✓ workloads" in shown
    assert run(*options).returncode == 2
