"""`bulkhead doctor --cluster`: each trouble in a table, and a real kubectl before a server like an API server."""

import copy
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from bulkhead_cli.operate import doctor_cluster
from bulkhead_cli.operate.doctor_cluster import LISTS, MAX_FINDINGS, examine_cluster, judge_lists
from bulkhead_cli.output import CommandError
from tests.eventually import until
from tests.needs import need

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
IMAGE, FIRST, KUBECTL = "registry.example.org/worker@sha256:ab", "worker-7d4b9c-0", "kubectl -n mesh"
Lists = dict[str, list[dict[str, Any]]]


def healthy() -> Lists:
    """Two replicas of a worker with an autoscaler, and a certificate."""
    template = {"spec": {"containers": [{"image": IMAGE}]}}
    running = {"ready": True, "started": True, "imageID": "x@sha256:1111", "state": {"running": {}}}
    pod: dict[str, Any] = {"metadata": {"labels": {"app.kubernetes.io/name": "worker"}}, **template}
    pod |= {"status": {"phase": "Running", "containerStatuses": [running]}}
    pods = [copy.deepcopy(pod) for _ in range(2)]
    for number in range(2):
        pods[number]["metadata"]["name"] = f"worker-7d4b9c-{number}"
    worker = {"metadata": {"name": "worker"}, "spec": {"replicas": 2, "template": template, "maxReplicas": 8}}
    certificate = {"metadata": {"name": "nats"}, "status": {"notAfter": "2027-11-23T12:00:00Z", **now("Ready", "True")}}
    return {kind: [] for kind in LISTS} | {
        "pods": pods,
        "certificates": [certificate],
        "deployments": [worker | {"status": {"availableReplicas": 2}}],
        "horizontalpodautoscalers": [worker | {"status": now("AbleToScale", "True")}],
    }


def now(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def changed(*changes: tuple[str, dict[str, Any]]) -> Lists:
    """Lists with fields put into the objects at these places, or with an object more in a list."""
    lists = healthy()
    for place, fields in changes:
        target: Any = lists
        for step in place.split():
            target = target[int(step) if step.isdigit() else step]
        if isinstance(target, list):
            target.append(fields)
        else:
            target.update(fields)
    return lists


def waiting(reason: str, message: str = "", **ended: Any) -> dict[str, Any]:
    """A container that waits, after it ended so."""
    state = {"state": {"waiting": {"reason": reason, "message": message}}, "lastState": {"terminated": ended}}
    return {"ready": False, "restartCount": 4, **state}


POD, STATUS = "pods 0", "pods 0 status containerStatuses 0"
WORKER, SCALER, CERT = "deployments 0 status", "horizontalpodautoscalers 0 status", "certificates 0 status"
CRASH, SCALING, PENDING = "CrashLoopBackOff", "autoscaler worker", ("pods 0 status", {"phase": "Pending"})
LOST = 'MountVolume.SetUp failed for volume "identity" : secret "keys" not found'
MOUNT = {"involvedObject": {"name": FIRST}, "reason": "FailedMount", "message": LOST}
QUOTA = {"involvedObject": {"name": "worker-7d4b9c"}, "reason": "FailedCreate", "message": "exceeded quota"}
OOM = {"lastState": {"terminated": {"reason": "OOMKilled"}}}
RECENT = {"exitCode": 1, "finishedAt": "2026-11-23T11:30:00Z"}
REFUSED = waiting("CreateContainerConfigError", 'configmap "tenants" not found')
STUCK = now("Progressing", "False", "ProgressDeadlineExceeded")
KEDA = {"metadata": {"name": "worker"}, "status": now("Ready", "False")}
TABLE: list[tuple[str, str, list[tuple[str, dict[str, Any]]]]] = [
    ("worker", "OOMKilled.*raise `memory`", [(STATUS, waiting(CRASH) | OOM)]),
    ("worker", "settings that cannot work.*correct", [(STATUS, waiting(CRASH, exitCode=2))]),
    ("worker", f"{CRASH} after 4 restarts.*logs {FIRST} --previous", [(STATUS, waiting(CRASH, exitCode=1))]),
    ("worker", "ImagePullBackOff: 403.*login", [(STATUS, waiting("ImagePullBackOff", "403"))]),
    ("worker", "RunContainerError: no exec.*describe pod", [(STATUS, waiting("RunContainerError", "no exec"))]),
    ("worker", "runs after 3 restarts", [(STATUS, {"restartCount": 3, "lastState": {"terminated": RECENT}})]),
    ("worker", "it is starting.*waits for", [(STATUS, {"ready": False, "started": False})]),
    ("worker", f"it runs and is not ready.*logs {FIRST}", [(STATUS, {"ready": False})]),
    ("worker", "no node takes its pod: 0/3", [(POD, {"status": now("PodScheduled", "False", "", "0/3 nodes")})]),
    ("worker", "a pod ended: Evicted", [(POD, {"status": {"phase": "Failed", "reason": "Evicted"}})]),
    ("worker", "1 of 2 replicas are available", [(WORKER, {"availableReplicas": 1})]),
    ("worker", "refuses its pods: exceeded", [(WORKER, {"availableReplicas": 0}), ("events", QUOTA)]),
    ("worker", "does not come to an end.*rollout undo", [(WORKER, {"availableReplicas": 1, **STUCK})]),
    (
        "worker",
        f"{FIRST}: other images.*upgrade the chart",
        [(POD, {"spec": {"containers": [{"image": "worker:old"}]}})],
    ),
    ("worker", "stands for 2 images.*by digest", [(STATUS, {"imageID": "x@sha256:2222"})]),
    ('secret "keys"', "worker.*KEYS", [(STATUS, waiting("ContainerCreating")), PENDING, ("events", MOUNT)]),
    ('configmap "tenants"', "does not exist.*upgrade the chart", [(STATUS, REFUSED), PENDING]),
    ("certificate nats", "not ready: no issuer.*cert-manager", [(CERT, now("Ready", "False", "", "no issuer"))]),
    ("certificate nats", "it ends on 2026-11-20", [(CERT, {"notAfter": "2026-11-20T12:00:00Z"})]),
    (SCALING, "cannot scale: no target.*hpa worker", [(SCALER, now("AbleToScale", "False", "", "no target"))]),
    (SCALING, "it has no metrics", [(SCALER, now("ScalingActive", "False", "FailedGetMetric"))]),
    (SCALING, "more than its 8 replicas.*raise", [(SCALER, now("ScalingLimited", "True", "TooManyReplicas"))]),
    (SCALING, "KEDA is not ready.*does KEDA run", [("scaledobjects", KEDA)]),
    ("pods", "nothing runs in this namespace.*install the chart", [("", {"pods": [], "deployments": []})]),
]


@pytest.mark.parametrize(("what", "words", "changes"), TABLE, ids=[row[1] for row in TABLE])
def test_each_trouble_is_named_with_its_remedy(what: str, words: str, changes: Any) -> None:
    [finding] = [finding for finding in judge_lists(changed(*changes), KUBECTL, NOW) if finding.level != "ok"]
    assert finding.what == what and re.search(words, f"{finding.detail} -> {finding.todo}"), finding


def test_what_holds_is_told_in_five_lines() -> None:
    findings = judge_lists(healthy(), KUBECTL, NOW)
    assert [finding.what for finding in findings] == ["pods", "replicas", "images", "secrets", "autoscalers"]
    assert {finding.level for finding in findings} == {"ok"}


def test_names_of_another_form_are_in_no_command_and_texts_stay_on_their_line() -> None:
    crash = (STATUS, waiting(CRASH, exitCode=1) | {"lastState": {"terminated": {"reason": "\n\x1b[2J" + "x" * 9999}}})
    text = str(judge_lists(changed(("pods 0 metadata", {"name": "$(reboot)"}), crash), KUBECTL, NOW))
    assert "$(reboot)" not in text and "\\x1b" not in text and "\\n" not in text and len(text) < 2000


class ApiServer(ThreadingHTTPServer):
    """Lists by plural, or a status in their place; plurals in `silent` are never answered. asked: methods and paths."""

    def __init__(self, folder: Path, lists: Lists) -> None:
        self.lists, self.statuses, self.silent, self.asked = lists, dict[str, int](), set[str](), list[str]()
        self.released, outer = threading.Event(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                kind = self.path.rpartition("/")[2].partition("?")[0]
                if kind in outer.silent:
                    outer.released.wait(30)
                code = outer.statuses.get(kind, 200 if kind in outer.lists else 404)
                reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(code, "")
                failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no"}
                text = json.dumps({"items": outer.lists[kind]} if code == 200 else failure | {"code": code}).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.config, self.path = self._config(), folder / "kubeconfig"
        self.path.write_text(yaml.safe_dump(self.config))

    def _config(self) -> dict[str, Any]:
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}
        user = {"name": "u", "user": {"token": "a-token"}}
        context = {"name": "here", "context": {"cluster": "c", "user": "u"}}
        lists = {"clusters": [cluster], "users": [user], "contexts": [context]}
        return {"apiVersion": "v1", "kind": "Config", "current-context": "here", **lists}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    need("kubectl")
    made = ApiServer(tmp_path, healthy())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(made.path))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.mark.slow
async def test_kubectl_reads_lists_and_tells_which_it_could_not(server: ApiServer) -> None:
    server.statuses = {"events": 403, "deployments": 500}
    del server.lists["scaledobjects"], server.lists["certificates"]
    events, deployments = await examine_cluster("mesh", "here")
    assert (events.what, deployments.what) == ("events", "deployments"), "and nothing is said to hold"
    assert "ask for the right" in events.todo and "try again" in deployments.todo
    assert {path.split()[0] for path in server.asked} == {"GET"} and not any("secret" in path for path in server.asked)
    names = [{"metadata": {"labels": {"app.kubernetes.io/name": f"worker-{number}"}}} for number in range(99)]
    server.lists["pods"] = [pod | {"status": {"phase": "Failed"}} for pod in names]
    bounded = await examine_cluster("mesh")
    assert len(bounded) == MAX_FINDINGS + 1 and "more findings" in bounded[-1].detail


@pytest.mark.slow
async def test_no_answer_is_one_finding_that_says_what_to_do(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def remedy(**options: Any) -> str:
        [finding] = await examine_cluster("mesh", **options)
        assert (finding.what, finding.level) == ("cluster", "problem")
        return finding.todo

    server.statuses = {"pods": 401}
    assert "log in again" in await remedy()
    server.silent = {"pods"}
    assert "is the cluster up" in await remedy(timeout_s=1)
    assert "name a context" in await remedy(context="nowhere")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "name a context" in await remedy()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install kubectl" in await remedy()
    with pytest.raises(CommandError, match="is no name"):
        await examine_cluster("../kube-system")


@pytest.mark.slow
async def test_a_login_program_that_does_not_end_is_ended(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_cluster, "EXTRA_S", 2.0)
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never"}
    server.config["users"][0]["user"] = {"exec": login | {"args": ["-c", f"echo $$ >> {tmp_path}/pids; sleep 600"]}}
    # kubectl logs in over TLS alone.
    cluster = server.config["clusters"][0]["cluster"]
    cluster["server"] = cluster["server"].replace("http:", "https:")
    server.path.write_text(yaml.safe_dump(server.config))
    [finding] = await examine_cluster("mesh", timeout_s=1)
    assert "did not end within 3 s" in finding.detail
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert await until(lambda: not any(map(psutil.pid_exists, pids)), "the login programs have ended")


@pytest.mark.slow
def test_the_command_prints_findings_and_ends_with_one_for_a_problem(server: ApiServer) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bulkhead_cli.main", "doctor", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    server.lists["certificates"] = []
    assert "✓ autoscalers" in run("--cluster", "--context", "here").stdout
    server.lists["deployments"][0]["status"] = {}
    done = run("--cluster", "--json")
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1 and rows["worker"]["level"] == "problem"
    assert run("--context", "here").returncode == 2
