"""Pods as the stage reads them from manifests: names, variables, volumes, probes."""

import io
import stat
import tarfile
from typing import Any

import pytest

from bulkhead_infra.stages.manifests import contents, pods
from bulkhead_infra.stages.manifests.contents import File, Maps
from bulkhead_infra.stages.manifests.fields import FieldError, Object
from bulkhead_infra.stages.manifests.pod_run import options

META = {"namespace": "mesh"}
MAP = {"kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"LEVEL": "info", "PLACE": "a"}}
SECRET = {"kind": "Secret", "metadata": {"name": "own"}, "stringData": {"key": "k"}, "data": {"old": "b2xk"}}
ACCOUNT = {"kind": "ServiceAccount", "metadata": {"name": "web", **META}, "automountServiceAccountToken": False}


def _workload(
    kind: str = "Deployment", *, pod: Object | None = None, container: Object | None = None, **spec: Any
) -> Object:
    labels = {"name": "web"}
    walls = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    one = {"name": "web", "image": "bulkhead/web:dev", "securityContext": walls, "resources": {}, "volumeMounts": []}
    content = {
        "serviceAccountName": "web",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 7, "runAsGroup": 8, "fsGroup": 9},
        "containers": [one | (container or {})],
        **(pod or {}),
    }
    template = {"metadata": {"labels": labels}, "spec": content}
    return {
        "kind": kind,
        "metadata": {"name": "web", **META},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def _service(**spec: Any) -> Object:
    return {"kind": "Service", "metadata": {"name": "web", **META}, "spec": {"selector": {"name": "web"}, **spec}}


def _pods(*objects: Object) -> list[pods.Pod]:
    return pods.read([ACCOUNT, MAP, SECRET, *objects])


def test_variables_come_from_maps_keys_and_facts_and_later_ones_win() -> None:
    env = [
        {"name": "LEVEL", "value": "debug"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "own", "key": "old"}}},
        {"name": "MINE", "value": "$(POD).$(PLACE) $$(POD) $(NOBODY)"},
    ]
    one = {"envFrom": [{"configMapRef": {"name": "shared"}}], "env": env, "args": ["--at", "$(PLACE)"]}
    [pod] = _pods(_workload("StatefulSet", container=one))
    assert pod.container.environment == {
        "LEVEL": "debug",
        "PLACE": "a",
        "POD": "web-0",
        "KEY": "old",
        "MINE": "web-0.a $(POD) $(NOBODY)",
    }
    assert pod.container.args == ("--at", "a")


def test_pods_have_the_names_that_their_controller_and_their_services_give_them() -> None:
    governed = _workload("StatefulSet", replicas=2, serviceName="web", podManagementPolicy="Parallel")
    first, second = _pods(governed, _service(clusterIP="None"))
    assert (first.name, second.name) == ("web-0", "web-1")
    assert {"web", "web.mesh.svc.cluster.local", "web-1.web", "web-1.web.mesh.svc.cluster.local"} <= set(second.names)
    one, other = _pods(_workload(replicas=2))
    assert one.name != other.name and one.name.rpartition("-")[0] == other.name.rpartition("-")[0]
    assert one.names == ()


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([_workload("StatefulSet", serviceName="web")], "no Service web chooses its pods"),
        ([_workload("StatefulSet", replicas=2)], "its pods wait for each other"),
        ([_workload(), _service(ports=[{"port": 80}])], "port 80 is none of container web"),
        (
            [
                _workload(container={"ports": [{"name": "http", "containerPort": 8080}]}),
                _service(ports=[{"port": 80, "targetPort": "http"}]),
            ],
            "port 80 leads to 8080",
        ),
        ([_workload(container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]})], "mounts the volume data"),
        ([_workload(container={"envFrom": [{"secretRef": {"name": "none"}}]})], "there is no Secret none"),
        ([_workload(container={"livenessProbe": {"periodSeconds": 1}})], "a probe asks nothing"),
        ([_workload(container={"resources": {"limits": {"memory": "1GB"}}})], "'1GB' is no quantity"),
        ([_workload(container={"securityContext": {"runAsUser": 0}})], "does not know the field .*runAsUser"),
        (
            [_workload(pod={"securityContext": {"runAsNonRoot": True, "runAsUser": 0, "runAsGroup": 0, "fsGroup": 0}})],
            "no user but root",
        ),
    ],
)
def test_what_cannot_be_started_is_refused_by_name(objects: list[Object], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        _pods(*objects)


def test_fields_become_dockers_options() -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "1"}, "requests": {"cpu": "250m", "memory": "1Mi"}}
    [pod] = _pods(_workload(container={"resources": resources, "command": ["run"]}))
    found = options(pod, pod.container)
    assert found["user"] == "7:8" and found["group_add"] == ["9"] and found["hostname"] == pod.name
    assert found["mem_limit"] == found["memswap_limit"] == 64 * 2**20
    assert (found["nano_cpus"], found["cpu_shares"]) == (10**9, 256)
    assert (found["entrypoint"], found["command"]) == (["run"], [])
    assert found["read_only"] and found["cap_drop"] == ["ALL"] and found["security_opt"] == ["no-new-privileges:true"]


def _files(volume: Object) -> dict[str, File]:
    return contents.files("web", volume, Maps([MAP, SECRET]), lambda audience, lasts_s: f"{audience} {lasts_s}", 7)


def test_a_projected_volume_has_files_of_each_source_with_their_modes() -> None:
    token = {"serviceAccountToken": {"audience": "bus", "expirationSeconds": 600, "path": "token"}}
    some = {"secret": {"name": "own", "items": [{"key": "key", "path": "renamed"}]}}
    found = _files({"name": "all", "projected": {"defaultMode": 0o400, "sources": [token, some]}})
    # fsGroup adds its group's right to read.
    assert found == {"token": File(b"bus 600", 0o640, 7), "renamed": File(b"k", 0o440)}


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"name": "v", "secret": {"secretName": "own", "items": [{"key": "no", "path": "p"}]}}, "has no key no"),
        ({"name": "v", "projected": {"sources": [{"secret": {"name": "own"}}] * 2}}, "two sources"),
    ],
)
def test_a_volume_that_cannot_be_filled_is_refused(volume: Object, words: str) -> None:
    with pytest.raises(FieldError, match=words):
        _files(volume)


def test_files_lie_behind_a_link_that_is_exchanged_as_a_whole() -> None:
    archive = contents.archive([("web-0/v", 9, {"key": File(b"k", 0o440, 7)}, "..1")])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {one.name: one for one in tar}
    assert found["web-0/v/key"].linkname == "..data/key" and found["web-0/v/..data"].linkname == "..1"
    file = found["web-0/v/..1/key"]
    assert (file.mode, file.uid, file.gid) == (0o440, 7, 9)
    assert found["web-0/v"].mode & stat.S_ISGID
