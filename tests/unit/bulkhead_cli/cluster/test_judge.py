"""Findings on a mesh in a cluster, from what a cluster says: none on one that is well, each trouble by its name."""

from typing import Any

import kubernetes_validate
import pytest

from bulkhead_cli.cluster.expected import expected
from bulkhead_cli.cluster.judge import judge
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_infra.kubernetes import overlays
from bulkhead_infra.services import EVERY_SERVICE
from tests.unit.bulkhead_cli.cluster.healthy import Lists, condition, container, event, lists, of_workload, seen

EXPECTED = expected()
LATEST = ".".join(kubernetes_validate.latest_version().split_round(".")[:2])
SECRETS = "python -m bulkhead_infra.kubernetes secrets KEYS | kubectl apply -f -"


def wrong(found: Lists, **more: Any) -> list[DoctorFinding]:
    """Findings that are not well; each says what to do."""
    findings = [one for one in judge(seen(found, **more), EXPECTED) if one.level != "ok"]
    assert all(one.todo and one.detail for one in findings)
    return findings


def only(found: Lists, **more: Any) -> DoctorFinding:
    (finding,) = wrong(found, **more)
    return finding


def waiting(found: Lists, workload: str, reason: str, message: str = "", **more: Any) -> None:
    """All pods of a workload wait for this."""
    for pod in of_workload(found, "pods", workload):
        pod["status"] |= {"phase": "Pending", "conditions": [condition("PodScheduled", "True")]}
        state = {"waiting": {"reason": reason, "message": message}}
        container(pod).update({"ready": False, "started": False, "state": state, **more})
    down(found, workload)


def down(found: Lists, workload: str) -> None:
    for one in (*of_workload(found, "deployments", workload), *of_workload(found, "statefulsets", workload)):
        one["status"]["readyReplicas"] = 0
    for one in found["endpointslices"]:
        if one["metadata"]["labels"]["kubernetes.io/service-name"] == workload:
            for end in one["endpoints"]:
                end["conditions"]["ready"] = False
    for one in of_workload(found, "poddisruptionbudgets", workload):
        one["status"] |= {"disruptionsAllowed": 0, "currentHealthy": 0}


def named(found: Lists, kind: str, name: str) -> dict[str, Any]:
    return next(one for one in found[kind] if one["metadata"]["name"] == name)


@pytest.mark.parametrize("overlay", overlays.OVERLAYS)
def test_nothing_is_wrong_with_a_namespace_that_is_well(overlay: str) -> None:
    found = judge(seen(lists(overlay)), EXPECTED)
    assert [one for one in found if one.level != "ok"] == []
    (standing,) = (one for one in found if one.what == "workloads")
    workloads = len(lists(overlay)["deployments"]) + len(lists(overlay)["statefulsets"])
    assert standing.detail.startswith(f"{workloads} workloads") and workloads > len(EVERY_SERVICE)


def test_the_renderers_rows_say_what_is_expected() -> None:
    assert set(EXPECTED.services) == {one.replace("_", "-") for one in EVERY_SERVICE}
    assert {"default-deny", "dns"} < EXPECTED.policies
    for overlay in overlays.OVERLAYS:
        found = lists(overlay)
        there = {one["metadata"]["name"] for one in found["networkpolicies"]}
        assert EXPECTED.policies < there


KINDS = {
    "pods": "v1/Pod",
    "services": "v1/Service",
    "persistentvolumeclaims": "v1/PersistentVolumeClaim",
    "nodes": "v1/Node",
    "namespace": "v1/Namespace",
    "events": "v1/Event",
    "resourcequotas": "v1/ResourceQuota",
    "limitranges": "v1/LimitRange",
    "deployments": "apps/v1/Deployment",
    "statefulsets": "apps/v1/StatefulSet",
    "jobs": "batch/v1/Job",
    "poddisruptionbudgets": "policy/v1/PodDisruptionBudget",
    "endpointslices": "discovery.k8s.io/v1/EndpointSlice",
    "horizontalpodautoscalers": "autoscaling/v2/HorizontalPodAutoscaler",
}


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.slow
def test_what_is_read_has_the_shape_that_kubernetes_publishes(plural: str) -> None:
    found = lists()
    waiting(found, "worker", "CrashLoopBackOff", lastState={"terminated": {"reason": "Error", "exitCode": 2}})
    of_workload(found, "pods", "worker")[0]["status"]["reason"] = "NodeLost"
    found["events"] = [event("Pod", "worker-0", "FailedMount", "no")]
    failed = condition("Failed", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    found["jobs"][0]["status"] = {"failed": 3, "conditions": [failed]}
    status = {"hard": {"pods": "50"}, "used": {"pods": "49"}}
    found["resourcequotas"] = [{"metadata": {"name": "compute"}, "status": status}]
    bound = {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "1m"}, "maxLimitRequestRatio": {"cpu": "3"}}
    found["limitranges"] = [{"metadata": {"name": "sizes"}, "spec": {"limits": [bound]}}]
    group, _, kind = KINDS[plural].rpartition("/")
    assert found[plural]
    for one in found[plural]:
        kubernetes_validate.validate({**one, "apiVersion": group, "kind": kind}, LATEST, strict=True)


# References


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_a_missing_reference_is_named_with_who_needs_it(kind: str) -> None:
    found = lists()
    name = "bulkhead-worker"
    if kind == "ConfigMap":
        name = next(one["metadata"]["name"] for one in found["configmaps"] if "settings" in one["metadata"]["name"])
    plural = f"{kind.lower()}s"
    found[plural] = [one for one in found[plural] if one["metadata"]["name"] != name]
    finding = only(found)
    assert (
        finding.what == f"{kind} {name}" and finding.level == "problem" and "cannot start without it" in finding.detail
    )
    assert (SECRETS in finding.todo) == (kind == "Secret")


def test_an_optional_reference_may_be_missing() -> None:
    found = lists()
    volumes = named(found, "deployments", "worker")["spec"]["template"]["spec"]["volumes"]
    volumes.append({"name": "more", "secret": {"secretName": "none", "optional": True}})
    assert wrong(found) == []


def test_a_key_that_a_reference_names_and_lacks() -> None:
    found = lists()
    waiting(found, "worker", "CreateContainerConfigError", "couldn't find key log_level in ConfigMap bulkhead/settings")
    finding = only(found)
    assert finding.what == "worker" and finding.level == "problem" and "2 pods" in finding.detail
    assert "couldn't find key log_level" in finding.detail and SECRETS in finding.todo


def test_a_volume_without_its_source_is_told_by_the_pods_events() -> None:
    found = lists()
    waiting(found, "gateway", "ContainerCreating")
    said = 'MountVolume.SetUp failed for volume "identity" : references non-existent secret key: ca.crt'
    found["events"] = [
        event("Pod", pod["metadata"]["name"], "FailedMount", said) for pod in of_workload(found, "pods", "gateway")
    ]
    finding = only(found)
    assert (finding.what, finding.level) == ("gateway", "problem")
    assert "non-existent secret key: ca.crt" in finding.detail and SECRETS in finding.todo


# Images


@pytest.mark.parametrize(
    ("reason", "todo"),
    [
        ("ImagePullBackOff", "imagePullSecrets"),
        ("ErrImagePull", "imagePullSecrets"),
        ("ErrImageNeverPull", "load it into this node"),
        ("InvalidImageName", "correct `images`"),
    ],
)
def test_an_image_that_cannot_be_had(reason: str, todo: str) -> None:
    found = lists()
    waiting(found, "rag", reason, 'Back-off pulling image "registry.example.org/rag"')
    finding = only(found)
    assert finding.what == "rag" and finding.detail.startswith(f"{reason}: Back-off") and todo in finding.todo


@pytest.mark.parametrize(
    ("last", "detail", "todo"),
    [
        ({"reason": "OOMKilled", "exitCode": 137}, "OOMKilled (exit code 137)", "raise its memory"),
        ({"reason": "Error", "exitCode": 78}, "settings that cannot work", "logs worker-7d4b9c-0 --previous"),
        (
            {"reason": "Error", "exitCode": 2, "message": "worker: BULKHEAD_SHARDS: 0 is less than 1"},
            "settings that cannot work: worker: BULKHEAD_SHARDS",
            "correct the setting",
        ),
        ({"reason": "Error", "exitCode": 137}, "exit code 137", "liveness probe"),
        ({"reason": "Error", "exitCode": 1}, "exit code 1", "logs worker-7d4b9c-0 --previous"),
        (None, "how it ended is not known", "--previous"),
    ],
)
def test_a_container_that_ends_again_and_again(last: dict[str, Any] | None, detail: str, todo: str) -> None:
    found = lists()
    state = {"terminated": last} if last else {}
    waiting(found, "worker", "CrashLoopBackOff", "back-off 5m0s", lastState=state, restartCount=7)
    finding = only(found)
    assert finding.what == "worker" and "CrashLoopBackOff, 7 restarts" in finding.detail
    assert detail in finding.detail and todo in finding.todo


def test_a_container_that_has_just_ended() -> None:
    found = lists()
    ended = container(of_workload(found, "pods", "worker")[0])
    ended.update({"ready": False, "state": {"terminated": {"reason": "Error", "exitCode": 1}}})
    finding = only(found)
    assert "CrashLoopBackOff" not in finding.detail and "0 restarts; it ended by Error (exit code 1)" in finding.detail
    ended["state"] = {"terminated": {"reason": "Completed", "exitCode": 0}}
    assert wrong(found) == [], "it drained"


def test_a_container_that_runs_again_after_many_ends() -> None:
    found = lists()
    last = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-11-23T11:30:00Z"}}
    container(of_workload(found, "pods", "budget")[0]).update({"restartCount": 5, "lastState": last})
    finding = only(found)
    assert finding.level == "warning" and "5 restarts" in finding.detail and "OOMKilled" in finding.detail
    last["terminated"]["finishedAt"] = "2026-11-20T11:30:00Z"
    assert wrong(found) == [], "days ago"


def test_a_container_that_runs_and_is_not_ready() -> None:
    found = lists()
    for pod in of_workload(found, "pods", "signer"):
        container(pod)["ready"] = False
    down(found, "signer")
    pod = of_workload(found, "pods", "signer")[0]["metadata"]["name"]
    found["events"] = [event("Pod", pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")]
    finding = only(found)
    assert finding.level == "problem" and "statuscode: 503" in finding.detail and "container_probe" in finding.todo
    for pod in of_workload(found, "pods", "signer"):
        container(pod)["started"] = False
    finding = only(found)
    assert finding.level == "warning" and "starting for 7200 s" in finding.detail


# Versions


def test_pods_of_another_image_than_their_workload_names() -> None:
    found = lists()
    of_workload(found, "pods", "planner")[0]["spec"]["containers"][0]["image"] = "registry.example.org/planner@sha256:0"
    finding = only(found)
    assert (finding.what, finding.level) == (
        "planner",
        "warning",
    ) and "planner-7d4b9c-0 run another image" in finding.detail


def test_a_tag_that_stands_for_two_images() -> None:
    found = lists()
    for one in (*of_workload(found, "deployments", "planner"), *of_workload(found, "pods", "planner")):
        one["spec"].get("template", one)["spec"]["containers"][0]["image"] = "registry.example.org/planner:1.0"
    assert wrong(found) == []
    container(of_workload(found, "pods", "planner")[0])["imageID"] = "registry.example.org/x@sha256:1"
    finding = only(found)
    assert finding.level == "problem" and "stands for 2 images" in finding.detail


def test_a_tag_that_the_others_do_not_have() -> None:
    found = lists("dev")
    for one in (*of_workload(found, "deployments", "checker"), *of_workload(found, "pods", "checker")):
        spec = one["spec"].get("template", one)["spec"]
        spec["containers"][0]["image"] = "bulkhead/checker:0.9"
    finding = only(found)
    assert finding.what == "checker" and "tag 0.9" in finding.detail and "dev" in finding.detail


def test_images_are_held_against_those_promoted_to_an_overlay() -> None:
    found = lists()
    runs = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in (*found["deployments"], *found["statefulsets"])
    }
    promoted = {EXPECTED.images[name]: image for name, image in runs.items()}
    assert wrong(found, promoted=promoted) == []
    finding = only(found, promoted=promoted | {"worker": f"registry.example.org/bulkhead/worker@sha256:{'ab' * 32}"})
    assert finding.what == "worker" and finding.level == "problem" and "sha256:abababab" in finding.detail


def test_a_placeholder_is_no_image() -> None:
    found = lists()
    image = "bulkhead/worker@sha256:" + "0" * 64
    for one in (*of_workload(found, "deployments", "worker"), *of_workload(found, "pods", "worker")):
        one["spec"].get("template", one)["spec"]["containers"][0]["image"] = image
    assert "promote" in only(found).todo


# Workloads


def test_a_namespace_without_a_mesh_and_one_that_lacks_a_service() -> None:
    found = lists()
    found["deployments"].remove(named(found, "deployments", "checker"))
    finding = wrong(found)[0]
    assert finding.what == "checker" and "no Deployment of this name" in finding.detail
    finding = only({kind: [] for kind in found})
    assert finding.what == "workloads" and "no workload of a mesh is in namespace bulkhead" in finding.detail


REFUSED = {
    "exceeded quota: compute, requested: limits.memory=256Mi, used: limits.memory=2Gi, limited: limits.memory=2Gi": (
        "ResourceQuota"
    ),
    "failed quota: compute: must specify limits.cpu": "Quota",
    "maximum memory usage per Container is 128Mi, but limit is 256Mi": "LimitRange",
    'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "proxy" must set '
    "securityContext.allowPrivilegeEscalation=false)": "Pod Security",
    "no PriorityClass with name bulkhead-standard was found": "priority class",
    'error looking up service account bulkhead/worker: serviceaccount "worker" not found': "service account",
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.parametrize("source", ["ReplicaFailure", "ReplicaSet", "StatefulSet", "Job"])
def test_a_pod_that_the_cluster_refuses_to_make(message: str, source: str) -> None:
    found = lists()
    name = {"StatefulSet": "rag", "Job": "provision-streams"}.get(source, "worker")
    said = f'pods "{name}-7d4b9c-abcde" is forbidden: {message}'
    if source == "Job":
        job = found["jobs"][0]
        job["status"] = {"failed": 0}
        found["events"] = [event("Job", job["metadata"]["name"], "FailedCreate", f"Error creating: {said}")]
    else:
        found["pods"] = [one for one in found["pods"] if one not in of_workload(found, "pods", name)]
        down(found, name)
    if source == "ReplicaFailure":
        failure = condition("ReplicaFailure", "True", "FailedCreate", said)
        named(found, "deployments", name)["status"]["conditions"].append(failure)
    elif source == "ReplicaSet":
        found["events"] = [event("ReplicaSet", f"{name}-7d4b9c", "FailedCreate", f"Error creating: {said}")]
    elif source == "StatefulSet":
        found["events"] = [event("StatefulSet", name, "FailedCreate", f"create Pod rag-0 failed error: {said}")]
    finding = only(found)
    assert finding.what == name and finding.level == "problem"
    assert REFUSED[message] in finding.detail and message[:40] in finding.detail


def test_a_rollout_without_an_end() -> None:
    found = lists()
    stuck = condition("Progressing", "False", "ProgressDeadlineExceeded", "has timed out progressing")
    named(found, "deployments", "gateway")["status"]["conditions"][1] = stuck
    finding = only(found)
    assert finding.what == "gateway" and "rollout undo deployment/gateway" in finding.todo


def test_zero_replicas_are_well_where_an_autoscaler_may_want_them_and_only_there() -> None:
    found = lists()
    for name in ("worker", "gateway", "upkeep"):
        named(found, "deployments", name)["spec"]["replicas"] = 0
        found["pods"] = [one for one in found["pods"] if one not in of_workload(found, "pods", name)]
        down(found, name)
        named(found, "poddisruptionbudgets", name)["status"]["expectedPods"] = 0
    named(found, "scaledobjects", "worker")["spec"]["minReplicaCount"] = 0
    levels = {one.what: one.level for one in wrong(found)}
    assert levels == {"gateway": "problem", "upkeep": "warning"}
    assert "scale deployment/gateway --replicas=1" in wrong(found)[0].todo


def test_the_job_of_streams_that_failed_or_tries_on() -> None:
    found = lists()
    job = found["jobs"][0]
    job["status"] = {"failed": 3}
    finding = only(found)
    assert (finding.what, finding.level) == ("provision-streams", "warning") and "3 failed pods" in finding.detail
    job["status"]["conditions"] = [condition("Failed", "True", "BackoffLimitExceeded", "Job has reached the limit")]
    finding = only(found)
    assert finding.level == "problem" and "BackoffLimitExceeded" in finding.detail
    assert f"delete job {job['metadata']['name']}" in finding.todo
