"""The mesh of the overlay `dev` comes up from the manifests alone and answers the demo; each container is as its
manifest says; what does not fit is told."""

import asyncio
import copy
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.client import Mesh
from bulkhead.testing.relay import BrokerRelay
from bulkhead_infra.docker.stack import run_docker
from bulkhead_infra.identity import policy
from bulkhead_infra.kubernetes.objects import COMPONENT, INFRASTRUCTURE
from bulkhead_infra.processes.http import get_url
from bulkhead_infra.stages.manifests import overlay
from bulkhead_infra.stages.manifests.contents import Maps
from bulkhead_infra.stages.manifests.fields import Object
from bulkhead_infra.stages.manifests.kubelet import Kubelet
from bulkhead_infra.stages.manifests.pod_run import PodFailed, PodRun
from tests.contract.containers.image_contract import Fitted, Image, fitted, read_at_start
from tests.contract.containers.overlays import spec
from tests.e2e.containers.field import TAG, answers_the_demo, load
from tests.e2e.fixtures.gate import GatedCounter
from tests.eventually import until

pytestmark = [pytest.mark.nightly, pytest.mark.asyncio(loop_scope="session"), pytest.mark.needs("kubectl")]

COMPONENTS = (INFRASTRUCTURE, "edge", "doer", "decider")
REPLACED_S = 120
TOKEN_S = 120
"""Short enough that tokens are exchanged while the tests run."""
SEEN_INSIDE = """
import json, os, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
listening = {int(row.split()[1].rpartition(":")[2], 16) for name in ("tcp", "tcp6")
             for row in open(f"/proc/net/{name}").read().splitlines()[1:] if row.split()[3] == "0A"}
def readable(path):
    try: return len(open(path, "rb").read()) > 0
    except OSError: return False
places = ("/", "/opt/bulkhead", "/bulkhead", "/bulkhead/identity", "/bulkhead/data", "/tmp", "/var")
writable = [folder for folder in places if os.access(folder, os.W_OK)]
print(json.dumps({
    "uid": status["Uid"].split()[0], "gid": status["Gid"].split()[0], "groups": status["Groups"].split(),
    "may": status["CapBnd"].strip("0"), "no_new": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "listening": sorted(listening), "unread": [path for path in sys.argv[1:] if not readable(path)],
    "writable": writable, "host": os.uname().nodename,
}))
"""


@dataclass
class Cluster:
    """The mesh that runs, and where its keys lie."""

    kubelet: Kubelet
    folder: Path
    objects: list[Object]
    counter: GatedCounter
    service: BrokerRelay

    def client(self) -> Mesh:
        """A client of the gateway, whose address stays as a Service's does."""
        return Mesh(f"http://127.0.0.1:{self.service.port}", overlay.credentials(self.folder)["submitter"])

    async def connections(self) -> dict[str, list[dict[str, Any]]]:
        """What the broker knows of its clients, by account."""
        _, body = await get_url(f"{self.kubelet.url('nats', 'monitor')}/connz?auth=true&limit=1024", 5)
        found: dict[str, list[dict[str, Any]]] = {}
        for row in json.loads(body)["connections"]:
            if "account" in row:  # A connection that has not logged in yet belongs to none.
                found.setdefault(row["account"], []).append(row)
        return found

    def fitted(self, folder: Path) -> dict[str, Fitted]:
        """Containers with their files, as the static contract has them, by pod."""
        pods = [run.pod for run in self.kubelet.runs.values()]
        return {one.pod.name: one for one in fitted(pods, Maps(self.kubelet.objects), folder)}


def _with_counter(found: list[Object], url: str, address: str) -> None:
    """As a patch in somebody's own overlay: tools reach a counter of this machine."""
    for name in ("signer", "tool-executor"):
        pods = spec(found, name)
        pods["containers"][0]["env"].append({"name": "BULKHEAD_COUNTER_URL", "value": url})
        pods["hostAliases"] = [{"ip": address, "hostnames": ["outside"]}]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster(built: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("manifests")
    [bridge] = json.loads(run_docker("network", "inspect", "bridge").stdout)
    with GatedCounter(folder / "counter.jsonl", host="0.0.0.0") as counter:
        url = f"http://outside:{counter.url.rpartition(':')[2]}"
        place = bridge["IPAM"]["Config"][0]  # Some daemons tell the address of their own bridge after a restart alone.
        address = place.get("Gateway") or str(next(ipaddress.ip_network(place["Subnet"]).hosts()))
        change = partial(_with_counter, url=url, address=address)
        async with overlay.running(
            "dev", folder, change=change, first=INFRASTRUCTURE, tag=TAG, token_s=TOKEN_S
        ) as kubelet:
            service = BrokerRelay(lambda: (kubelet.of("gateway")[0].address, 8080))
            await service.open()
            yield Cluster(kubelet, folder, kubelet.objects, counter, service)
            await service.close()


def _inside(run: PodRun, *arguments: str) -> dict[str, Any]:
    assert run.box is not None
    found: dict[str, Any] = json.loads(run_docker("exec", run.box.id, "python3", "-c", SEEN_INSIDE, *arguments).stdout)
    return found


async def test_every_pod_is_ready_by_its_own_probes(cluster: Cluster, record_property: Callable[..., None]) -> None:
    wanted = {one["metadata"]["name"] for one in cluster.objects if one["kind"] in ("Deployment", "StatefulSet", "Job")}
    assert {run.pod.owner for run in cluster.kubelet.runs.values()} == wanted
    assert all(run.ready for run in cluster.kubelet.runs.values())
    for name, run in cluster.kubelet.runs.items():
        record_property(name, run.ready_after_s)
        print(f"{name}: ready after {run.ready_after_s:.1f} s, {run.restarts} restarts")


async def test_the_demo_is_answered_rightly(cluster: Cluster, tmp_path: Path) -> None:
    async with cluster.client() as client:
        await answers_the_demo(client, 7, tmp_path)


async def test_services_log_in_with_their_tokens(cluster: Cluster) -> None:
    rules, found = policy.load_policy(kubernetes=True), await cluster.connections()
    for service in rules.with_token:
        # An nkey's user is the key itself.
        assert {row["authorized_user"] for row in found[f"SVC_{service.upper()}"]} == {service}
    assert [row["authorized_user"][0] for row in found["SVC_IDENTITY"]] == ["U"], "nobody else could admit it"


async def test_a_task_runs_on_while_tokens_and_their_key_are_exchanged(cluster: Cluster, tmp_path: Path) -> None:
    before = {row["cid"] for rows in (await cluster.connections()).values() for row in rows}
    await cluster.kubelet.rotate_signing_key()

    async def all_anew() -> bool:
        found = await cluster.connections()
        return all(
            any(row["cid"] not in before for row in found[f"SVC_{service.upper()}"])
            for service in policy.load_policy(kubernetes=True).with_token
        )

    async with cluster.client() as client:
        await answers_the_demo(client, 11, tmp_path)
        assert await until(all_anew, "each service has logged in with its new token", timeout_s=60, every_s=1)
    assert all(run.ready and run.restarts == run.restarts_at_ready for run in cluster.kubelet.runs.values())


async def test_each_container_is_as_its_manifest_says(cluster: Cluster, tmp_path: Path) -> None:
    for name, one in cluster.fitted(tmp_path).items():
        run = cluster.kubelet.runs[name]
        if run.ended:
            continue
        found = await asyncio.to_thread(_inside, run, *map(str, read_at_start(one)))
        wanted = one.container
        assert (found["uid"], found["gid"]) == (str(wanted.user), str(wanted.group)), name
        assert str(one.pod.fs_group) in found["groups"], name
        assert (found["may"], found["no_new"], found["seccomp"], found["host"]) == ("", "1", "2", name)
        assert found["unread"] == [], name
        # One of the brokers' ports is there for a cluster of them.
        assert set(wanted.ports.values()) - set(found["listening"]) <= ({6222} if name == "nats-0" else set()), name
        mounted = {mount.path for mount in wanted.mounts if not mount.read_only}
        assert set(found["writable"]) == mounted, name
        assert run.box is not None
        host = (await run.box.facts())["HostConfig"]
        assert (host["Memory"], host["NanoCpus"]) == (wanted.memory_bytes, int(wanted.cpus * 10**9)), name


async def test_images_are_what_the_contract_takes_them_for(built: Mapping[str, str], cluster: Cluster) -> None:
    for run in cluster.kubelet.runs.values():
        image = Image.of(run.pod.container)
        config = json.loads(run_docker("image", "inspect", built[image.name]).stdout)[0]["Config"]
        assert config["User"] == image.user
        assert set(image.environment.items()) <= {tuple(one.split_round("=", 1)) for one in config["Env"]}, image.name


async def test_every_pod_is_replaced_under_load(cluster: Cluster) -> None:
    """All of a component at once: none of its kind is left meanwhile."""
    running = {name: run.pod.labels[COMPONENT] for name, run in cluster.kubelet.runs.items() if not run.ended}
    async with cluster.client() as client:
        async with load(cluster, client) as tasks:
            for component in COMPONENTS:
                await cluster.kubelet.replace([name for name, its in running.items() if its == component], REPLACED_S)
                # Load all the time: since the last replacement tasks went in.
                in_after = partial(lambda before: len(tasks) > before, len(tasks))
                assert await until(in_after, f"after {component} a task went in", REPLACED_S)
        for task in tasks:
            await task.ends_rightly()
    assert set(running.values()) == set(COMPONENTS)


async def test_a_container_that_is_killed_comes_back(cluster: Cluster) -> None:
    run = cluster.kubelet.of("signer")[0]
    before = run.restarts
    assert run.box is not None
    run_docker("kill", run.box.id)
    assert await until(lambda: run.restarts > before and run.ready, "it is ready again", timeout_s=90, every_s=0.2)


async def test_every_pod_ends_in_order_within_its_grace_period(cluster: Cluster) -> None:
    assert {name: code for name, code in (await cluster.kubelet.end()).items() if code} == {}


def _init(code: int) -> Callable[[Object], None]:
    """An init container that writes a mark into /tmp, and ends with this code."""

    def change(pods: Object) -> None:
        mark = f"import sys; open('/tmp/mark', 'w').write('here'); sys.exit({code})"
        kept = {key: value for key, value in _one(pods).items() if "Probe" not in key and key not in ("ports", "args")}
        _spec(pods)["initContainers"] = [kept | {"name": "first", "command": ["python3", "-c", mark]}]

    return change


def _dying(pods: Object) -> None:
    """They start after an init container, and a probe of what nobody answers ends them again."""
    _init(0)(pods)
    _one(pods)["livenessProbe"] |= {"periodSeconds": 1, "httpGet": {"path": "/no", "port": "http"}}


def _failing(pods: Object) -> None:
    """They are a Job's, which may fail once."""
    pods["kind"], pods["spec"]["backoffLimit"] = "Job", 1
    _spec(pods)["restartPolicy"] = "OnFailure"
    one = _one(pods)
    for key in [key for key in one if "Probe" in key]:
        del one[key]
    one |= {"command": ["python3", "-c", "import sys; sys.exit('no streams')"], "args": []}
    for key in ("replicas", "selector"):
        del pods["spec"][key]


def _spec(pods: Object) -> Object:
    content: Object = pods["spec"]["template"]["spec"]
    return content


def _one(pods: Object) -> Object:
    content: Object = _spec(pods)["containers"][0]
    return content


LOOPBACK, MISSPELT = ["--host", "127.0.0.1", "--port", "8000"], ["--prot", "8000"]
PLANTED: dict[str, tuple[Callable[[Object], Any], str]] = {
    "other-path": (
        lambda pods: _one(pods)["readinessProbe"]["httpGet"].update(path="/ready"),
        "readinessProbe: http://.*/ready answers 404",
    ),
    "loopback": (lambda pods: _one(pods).update(args=LOOPBACK), "startupProbe: no answer"),
    "misspelt": (lambda pods: _one(pods).update(args=MISSPELT), "its container ended with 2: .*--port"),
    "no-image": (lambda pods: _one(pods).update(image="bulkhead/other:dev"), "there is no image bulkhead/other"),
    "no-memory": (lambda pods: _one(pods)["resources"]["limits"].update(memory="16Mi"), "container ended with 137"),
    "no-start": (_init(3), "init container first ended with 3"),
    "dying": (_dying, "livenessProbe has failed 3 times: http://.*/no answers 404"),
    "failing": (_failing, "the job has failed 2 times; its container ended with 1: .*no streams"),
}
"""Offline models, which need nobody else, with something wrong; and what is told."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def wrong(built: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kubelet]:
    rendered = [one for one in overlay.manifests("dev") if one["metadata"]["name"] == "offline-model"]
    found = [one for one in rendered if one["kind"] == "ServiceAccount"]
    for name, (change, _) in PLANTED.items():
        one = copy.deepcopy(next(one for one in rendered if one["kind"] == "Deployment"))
        one["metadata"]["name"] = name
        change(one)
        found.append(one)
    kubelet = Kubelet(found, tmp_path_factory.mktemp("wrong"), tag=TAG)
    await kubelet.open()
    kubelet.start()
    yield kubelet
    await kubelet.close()


@pytest.mark.parametrize("name", PLANTED)
async def test_a_pod_that_cannot_run_is_told_with_the_reason(wrong: Kubelet, name: str) -> None:
    [run], words = wrong.of(name), PLANTED[name][1]
    assert await until(lambda: re.search(words, run.why), words, timeout_s=60, every_s=0.1)
    assert not (run.ready and name != "dying")


async def test_pods_that_are_not_ready_are_named(wrong: Kubelet) -> None:
    with pytest.raises(PodFailed, match="no-image"):
        await wrong.ready(1)


async def test_a_container_that_a_probe_ended_finds_the_volumes_of_its_pod(wrong: Kubelet) -> None:
    [run] = wrong.of("dying")
    assert await until(lambda: run.restarts > 0 and run.ready, "it is ready again", timeout_s=60, every_s=0.1)
    assert run.box is not None
    assert run_docker("exec", run.box.id, "python3", "-c", "print(open('/tmp/mark').read())").stdout == "here\n"
