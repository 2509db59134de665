"""A namespace in which all is well: the rendered manifests of an overlay with the status that a cluster adds to them.

In: the name of an overlay. Out: lists of objects by plural, as the API server has them; a test breaks what it tests.
Shapes of statuses are those of k8s.io/api (core, apps, batch, policy, discovery, autoscaling v2), of keda.sh/v1alpha1
and of cert-manager.io/v1.
"""

import copy
import functools
from datetime import UTC, datetime
from typing import Any

from bulkhead_cli.cluster.seen import Seen
from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.overlays import SECRET_OWNERS
from tests.unit.infra.kubernetes.rendered import Object, components, overlay

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BEGAN, LONG_AGO, SOON = "2026-11-23T10:00:00Z", "2026-11-01T10:00:00Z", "2027-10-01T10:00:00Z"
NODES = ("node-a", "node-b", "node-c")
PLURALS = {
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}
LISTS = (
    *("pods", "services", "persistentvolumeclaims", "resourcequotas", "limitranges", "events", "secrets", "configmaps"),
    *("deployments", "statefulsets", "jobs", "poddisruptionbudgets", "networkpolicies", "endpointslices", "nodes"),
    *("horizontalpodautoscalers", "scaledobjects", "certificates", "namespace", "metrics"),
)

Lists = dict[str, list[Object]]


@functools.cache
def _lists(name: str) -> Lists:
    found: Lists = {kind: [] for kind in LISTS}
    for number, one in enumerate([*overlay(name), *components("keda")]):
        kind = one["kind"]
        one["metadata"] |= {"uid": str(number), "creationTimestamp": LONG_AGO, "namespace": objects.NAMESPACE}
        plural = "namespace" if kind == "Namespace" else PLURALS.get(kind, f"{kind.lower()}s")
        if plural in found:
            found[plural].append(one)
    for one in [*found["deployments"], *found["statefulsets"]]:
        _workload(one, found)
    for one in found["jobs"]:
        _job(one, found)
    for one in found["services"]:
        _service(one, found)
    for one in found["persistentvolumeclaims"]:
        one["status"] = {"phase": "Bound"}
    for one in found["poddisruptionbudgets"]:
        count = len(of_workload(found, "pods", one["metadata"]["name"]))
        one["status"] = {
            "disruptionsAllowed": 1,
            "currentHealthy": count,
            "desiredHealthy": max(0, count - 1),
            "expectedPods": count,
        }
    _operators(found)
    secrets = [*(f"bulkhead-{objects.name_of(owner)}" for owner in SECRET_OWNERS), objects.TLS_SECRET]
    found["secrets"] = [{"metadata": {"name": one}} for one in secrets]
    found["configmaps"].append({"metadata": {"name": objects.CLUSTER_CA}})
    found["namespace"][0]["status"] = {"phase": "Active"}
    found["nodes"] = [
        {"metadata": {"name": one}, "status": {"conditions": [condition("Ready", "True", "KubeletReady")]}}
        for one in NODES
    ]
    return found


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": BEGAN}


def _workload(one: Object, found: Lists) -> None:
    spec, name = one["spec"], one["metadata"]["name"]
    # What KEDA scales names no replicas.
    count = spec.setdefault("replicas", 2)
    container = spec["template"]["spec"]["containers"][0]
    image = container["image"].partition("@")[0]
    if "@" in container["image"]:
        container["image"] = f"registry.example.org/{image}@sha256:{hash(image) % 10**16:064d}"
    one["status"] = {"observedGeneration": 1, "replicas": count, "readyReplicas": count, "availableReplicas": count}
    if one["kind"] == "Deployment":
        one["status"]["conditions"] = [
            condition("Available", "True", "MinimumReplicasAvailable"),
            condition("Progressing", "True", "NewReplicaSetAvailable"),
        ]
    stateful = one["kind"] == "StatefulSet"
    for number in range(count):
        pod = f"{name}-{number}" if stateful else f"{name}-7d4b9c-{number}"
        owner = {"kind": one["kind"] if stateful else "ReplicaSet", "name": name if stateful else f"{name}-7d4b9c"}
        found["pods"].append(_pod(pod, spec["template"], owner, NODES[number % len(NODES)]))
        for claim in spec.get("volumeClaimTemplates", ()):
            metadata = {"name": f"{claim['metadata']['name']}-{pod}"}
            found["persistentvolumeclaims"].append({"metadata": metadata, "spec": claim["spec"]})


def _pod(name: str, template: Object, owner: Object, node: str) -> Object:
    container = template["spec"]["containers"][0]
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"registry.example.org/x@sha256:{hash(container['image']) % 10**16:064d}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": BEGAN}},
        "lastState": {},
    }
    metadata = {
        "name": name,
        "labels": template["metadata"]["labels"],
        "creationTimestamp": BEGAN,
        "ownerReferences": [{"apiVersion": "apps/v1", "uid": "1", **owner}],
    }
    conditions = [condition("PodScheduled", "True"), condition("Ready", "True")]
    return {
        "metadata": metadata,
        "spec": {**copy.deepcopy(template["spec"]), "nodeName": node},
        "status": {"phase": "Running", "startTime": BEGAN, "conditions": conditions, "containerStatuses": [status]},
    }


def _job(one: Object, found: Lists) -> None:
    one["status"] = {"succeeded": 1, "conditions": [condition("Complete", "True")]}
    name = one["metadata"]["name"]
    pod = _pod(f"{name}-x1", one["spec"]["template"], {"kind": "Job", "name": name}, NODES[0])
    pod["status"] = {"phase": "Succeeded"}
    found["pods"].append(pod)


def _service(one: Object, found: Lists) -> None:
    name = one["metadata"]["name"]
    pods = [pod for pod in found["pods"] if one["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
    ends = [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": pod["spec"]["nodeName"]} for pod in pods
    ]
    labels = {"kubernetes.io/service-name": name}
    found["endpointslices"].append(
        {"metadata": {"name": f"{name}-x", "labels": labels}, "endpoints": ends, "addressType": "IPv4"}
    )


def _operators(found: Lists) -> None:
    for one in found["scaledobjects"]:
        conditions = [("Ready", "True", "ScaledObjectReady"), ("Active", "True", ""), ("Fallback", "False", "")]
        one["status"] = {"conditions": [condition(*each) for each in (*conditions, ("Paused", "Unknown", ""))]}
        target = one["spec"]["scaleTargetRef"]["name"]
        conditions = [("AbleToScale", "True", ""), ("ScalingActive", "True", ""), ("ScalingLimited", "False", "")]
        found["horizontalpodautoscalers"].append(
            {
                "metadata": {"name": f"keda-hpa-{target}", "labels": one["metadata"]["labels"]},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": target}, "maxReplicas": 8},
                "status": {"desiredReplicas": 2, "conditions": [condition(*each) for each in conditions]},
            }
        )
    for one in found["certificates"]:
        times = {"notBefore": LONG_AGO, "notAfter": SOON, "renewalTime": "2027-07-01T10:00:00Z"}
        one["status"] = {"conditions": [condition("Ready", "True")], "revision": 1, **times}


def lists(name: str = "production") -> Lists:
    """Fresh objects, which a test may change."""
    return copy.deepcopy(_lists(name))


def seen(found: Lists, **more: Any) -> Seen:
    server = {"major": "1", "minor": "35", "gitVersion": "v1.35.2"}
    return Seen(objects.NAMESPACE, NOW, found, **({"server": server} | more))


def of_workload(found: Lists, kind: str, name: str) -> list[Object]:
    """Objects with a workload's label."""
    return [one for one in found[kind] if one["metadata"].get("labels", {}).get(objects.NAME) == name]


def container(pod: Object) -> Object:
    """Status of the only container of a pod."""
    status: Object = pod["status"]["containerStatuses"][0]
    return status


def event(kind: str, name: str, reason: str, message: str) -> Object:
    return {
        "metadata": {"name": f"{name}.17"},
        "involvedObject": {"kind": kind, "name": name, "namespace": objects.NAMESPACE},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": "2026-11-23T11:59:00Z",
        "count": 12,
    }
