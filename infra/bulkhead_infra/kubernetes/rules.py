"""Rules that manifests of the mesh obey, beyond what their schemas say. Pure.

In: objects as `kubectl kustomize` prints them. Out: one line per breach: rule, object, problem with its remedy.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bulkhead_infra.kubernetes import images, objects
from bulkhead_infra.kubernetes.infrastructure import NO_PROBE
from bulkhead_infra.kubernetes.objects import Object

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
STANDING = ("Deployment", "StatefulSet")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
BY_DIGEST = re.compile(r"[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}")
WRITES = frozenset({"*", "create", "update", "patch", "delete", "deletecollection"})
HOST = ("hostNetwork", "hostPID", "hostIPC")
MAX_TOKEN_S = 3600


@dataclass(frozen=True, slots=True)
class Breach:
    """One object that breaks one rule."""

    rule: str
    object: str
    problem: str

    def __str__(self) -> str:
        return f"{self.object}: {self.problem} [{self.rule}]"


class Manifests:
    """Objects of one overlay, by what rules ask of them."""

    def __init__(self, found: Sequence[Object]) -> None:
        self.objects = found

    def of(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] in kinds]

    @cached_property
    def pods(self) -> list[tuple[Object, Object]]:
        """Workloads with the content of their pods."""
        return [(one, one["spec"]["template"]["spec"]) for one in self.of(*WORKLOADS)]

    @cached_property
    def containers(self) -> list[tuple[Object, Object, Object]]:
        """Workloads, pods, and each container of them."""
        return [
            (workload, pod, one)
            for workload, pod in self.pods
            for one in (*pod.get("initContainers", ()), *pod["containers"])
        ]

    def named(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.of(kind)}


Found = Iterator[tuple[Object, str]]


def _by_digest(found: Manifests) -> Found:
    for workload, _, container in found.containers:
        image = container["image"]
        if not BY_DIGEST.fullmatch(image):
            yield workload, f"image {image} has no digest: promote one (images.sha256)"
        elif image.endswith(images.PLACEHOLDER):
            yield workload, f"image {image} is a placeholder: nothing was promoted to this overlay yet"


def _tagged(found: Manifests) -> Found:
    for workload, _, container in found.containers:
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@" not in image and tag in ("", "latest"):
            yield workload, f"image {image} is whatever comes: name a tag or a digest (`images` of the overlay)"


def _no_root(found: Manifests) -> Found:
    for workload, pod, container in found.containers:
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield workload, f"{container['name']} may run as root: runAsNonRoot: true and runAsUser: {objects.USER}"


def _contained(found: Manifests) -> Found:
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    for workload, _, container in found.containers:
        context = container.get("securityContext", {})
        for key, value in wanted.items():
            if context.get(key) is not value:
                yield workload, f"{container['name']} lacks securityContext.{key}: {str(value).lower()}"
        capabilities = context.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add") or context.get("privileged"):
            yield workload, f"{container['name']} keeps capabilities: drop ALL, add none, and no `privileged`"


def _seccomp(found: Manifests) -> Found:
    for workload, pod, container in found.containers:
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield workload, f"{container['name']} may call the whole kernel: seccompProfile.type: RuntimeDefault"


def _no_host(found: Manifests) -> Found:
    for workload, pod in found.pods:
        for key in HOST:
            if pod.get(key):
                yield workload, f"{key} opens the machine to it: remove it"
        for volume in pod.get("volumes", ()):
            if "hostPath" in volume:
                yield workload, f"volume {volume['name']} is a folder of the machine (hostPath): claim a volume"
        for container in pod["containers"]:
            if any("hostPort" in port for port in container.get("ports", ())):
                yield workload, "hostPort opens a port of the machine: make a Service"


def _no_api_token(found: Manifests) -> Found:
    for one in found.of("ServiceAccount"):
        if one.get("automountServiceAccountToken") is not False:
            yield one, "pods get a token of the API server: automountServiceAccountToken: false"
    bound = {
        subject["name"] for one in found.of("RoleBinding", "ClusterRoleBinding") for subject in one.get("subjects", ())
    }
    for workload, pod in found.pods:
        if pod.get("automountServiceAccountToken") is not False:
            yield workload, "pods get a token of the API server: automountServiceAccountToken: false"
        named = pod.get("serviceAccountName") in bound
        for volume in pod.get("volumes", ()):
            for source in volume.get("projected", {}).get("sources", ()):
                token = source.get("serviceAccountToken")
                if token is None:
                    continue
                # One for the API server is for those alone who are bound to a role there.
                if token.get("expirationSeconds", 3600) > MAX_TOKEN_S or not (token.get("audience") or named):
                    yield workload, f"the token in {volume['name']} is good for too much: an audience, {MAX_TOKEN_S} s"


def _own_account(found: Manifests) -> Found:
    there, used = found.named("ServiceAccount"), set[str]()
    for workload, pod in found.pods:
        name = pod.get("serviceAccountName", "default")
        if name not in there:
            yield workload, f"service account {name} is not among the manifests: each workload has one of its own"
        elif name in used:
            yield workload, f"service account {name} is another workload's too: each has one of its own"
        used.add(name)


def _probed(found: Manifests) -> Found:
    for workload, pod in found.pods:
        if workload["metadata"].get("annotations", {}).get(NO_PROBE):
            continue
        for container in pod["containers"]:
            if missing := [name for name in PROBES if name not in container]:
                yield workload, f"{container['name']} has no {', '.join(missing)}, nor an annotation {NO_PROBE}"


def _sized(found: Manifests) -> Found:
    for workload, _, container in found.containers:
        given = container.get("resources", {})
        wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory"))
        if missing := [f"{kind}.{what}" for kind, what in wanted if what not in given.get(kind, {})]:
            yield workload, f"{container['name']} lacks resources.{', resources.'.join(missing)}"


def _disruption_budget(found: Manifests) -> Found:
    budgets = [one["spec"]["selector"]["matchLabels"] for one in found.of("PodDisruptionBudget")]
    for workload in found.of(*STANDING):
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        if not any(budget.items() <= labels for budget in budgets):
            yield workload, "no PodDisruptionBudget selects it: emptying a machine could take all replicas at once"


def _priority(found: Manifests) -> Found:
    there = found.named("PriorityClass")
    for workload, pod in found.pods:
        if pod.get("priorityClassName") not in there:
            yield workload, f"priorityClassName {pod.get('priorityClassName')} is none of {', '.join(sorted(there))}"


def _spread(found: Manifests) -> Found:
    for workload, pod in found.pods:
        spread = [one["labelSelector"]["matchLabels"] for one in pod.get("topologySpreadConstraints", ())]
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        if workload["spec"].get("replicas", 1) > 1 and not any(one.items() <= labels for one in spread):
            yield workload, "all replicas may lie on one machine: topologySpreadConstraints"


def _drained(found: Manifests) -> Found:
    drain = objects.grace_s() - objects.MARGIN_S
    behind = [one["spec"]["selector"] for one in found.of("Service") if one["spec"].get("clusterIP") != "None"]
    for workload, pod in found.pods:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        stops = [
            one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for one in pod["containers"]
        ]
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if grace <= drain + max(stops):
            yield workload, f"it is killed after {grace} s, and may drain for {drain + max(stops)}: give it more"
        own = any(selector.items() <= labels.items() for selector in behind)
        if own and labels[objects.COMPONENT] != objects.INFRASTRUCTURE and not max(stops):
            yield workload, "it is behind a Service and stops while it is called: a preStop that sleeps"


def _references(found: Manifests) -> Found:
    maps, claims = found.named("ConfigMap") | {objects.CLUSTER_CA}, found.named("PersistentVolumeClaim")
    for workload, pod in found.pods:
        wanted = [
            one["configMapRef"]["name"] for container in pod["containers"] for one in container.get("envFrom", ())
        ]
        variables = [one.get("valueFrom", {}) for container in pod["containers"] for one in container.get("env", ())]
        wanted += [one["configMapKeyRef"]["name"] for one in variables if "configMapKeyRef" in one]
        for volume in pod.get("volumes", ()):
            sources = [volume, *volume.get("projected", {}).get("sources", ())]
            wanted += [one["configMap"]["name"] for one in sources if "configMap" in one]
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                yield workload, f"claim {claim} is not among the manifests"
        for name in sorted(set(wanted) - maps):
            yield workload, f"ConfigMap {name} is not among the manifests"


def _no_secrets(found: Manifests) -> Found:
    for one in found.of("Secret"):
        yield one, "a Secret among the manifests: refer to one by name (`python -m bulkhead_infra.kubernetes secrets`)"
    for one in found.of("Role", "ClusterRole"):
        for rule in one.get("rules") or ():
            if {"*", "secrets"} & set(rule.get("resources", ())) and WRITES & set(rule["verbs"]):
                yield one, "it lets a pod write Secrets: take the verbs away"


def _walled(found: Manifests) -> Found:
    for one in found.of("Namespace"):
        if one["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield one, "pods without walls are admitted: label pod-security.kubernetes.io/enforce: restricted"
    denies = [
        one
        for one in found.of("NetworkPolicy")
        if one["spec"]["podSelector"] == {} and not one["spec"].get("ingress") and not one["spec"].get("egress")
    ]
    if not any(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} for one in denies):
        nobody = {"kind": "NetworkPolicy", "metadata": {"name": "default-deny"}}
        yield nobody, "it is missing: what no policy selects may be called and call whatever it likes"


RULES: Mapping[str, Callable[[Manifests], Found]] = {
    "by-digest": _by_digest,
    "tagged": _tagged,
    "no-root": _no_root,
    "contained": _contained,
    "seccomp": _seccomp,
    "no-host": _no_host,
    "no-api-token": _no_api_token,
    "own-account": _own_account,
    "probed": _probed,
    "sized": _sized,
    "disruption-budget": _disruption_budget,
    "priority": _priority,
    "spread": _spread,
    "drained": _drained,
    "references": _references,
    "no-secrets": _no_secrets,
    "walled": _walled,
}


def broken(found: Sequence[dict[str, Any]], *, promoted: bool = True) -> list[Breach]:
    """All breaches. promoted: images have to be there by digest."""
    manifests = Manifests(found)
    return [
        Breach(rule, f"{where['kind']} {where['metadata']['name']}", problem)
        for rule, look in RULES.items()
        if promoted or rule != "by-digest"
        for where, problem in look(manifests)
    ]
