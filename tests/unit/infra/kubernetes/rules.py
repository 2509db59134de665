"""Rules that the objects of the chart obey, beyond what their schemas say. Pure.

In: objects of one installation. Out: one line per breach: rule, object, problem.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from bulkhead.runtime.settings import ServiceSettings

Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
UNPROBED = ("provision-streams", "upkeep")
"""Workloads that listen nowhere and end when they cannot go on."""
IMAGE = re.compile(r"[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}")
CLUSTER_CA = "kube-root-ca.crt"
"""The ConfigMap with the API server's CA, which Kubernetes puts into every namespace."""
MAX_TOKEN_S = 3600
DRAIN_S = int(ServiceSettings.model_fields["drain_timeout_s"].default)
CONTAINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "privileged": False}
SIZES = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


class Installation:
    """Objects of one installation, by what rules ask of them."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects

    def of_kind(self, *kinds: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] in kinds]

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.of_kind(kind)}

    @cached_property
    def pods(self) -> list[tuple[Object, Object]]:
        """Workloads with the content of their pods."""
        return [(each, each["spec"]["template"]["spec"]) for each in self.of_kind(*WORKLOADS)]

    @cached_property
    def containers(self) -> list[tuple[Object, Object, Object]]:
        """Workloads, each container of them, and its security context with what the pod adds."""
        return [
            (workload, row, {**pod.get("securityContext", {}), **row.get("securityContext", {})})
            for workload, pod in self.pods
            for row in (*pod.get("initContainers", ()), *pod["containers"])
        ]


Breaches = Iterator[tuple[Object, str]]


def _by_digest(installation: Installation) -> Breaches:
    for workload, row, _ in installation.containers:
        if not IMAGE.fullmatch(row["image"]):
            yield workload, f"image {row['image']} has no digest"


def _confined(installation: Installation) -> Breaches:
    for workload, row, context in installation.containers:
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield workload, f"{row['name']} may run as root"
        if wrong := [key for key, value in CONTAINED.items() if context.get(key) is not value]:
            yield workload, f"{row['name']} lacks {wrong}"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield workload, f"{row['name']} keeps capabilities"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield workload, f"{row['name']} may call the whole kernel"


def _no_host(installation: Installation) -> Breaches:
    for workload, pod in installation.pods:
        opened = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
        opened += ["hostPath" for volume in pod.get("volumes", ()) if "hostPath" in volume]
        opened += ["hostPort" for row in pod["containers"] for port in row.get("ports", ()) if "hostPort" in port]
        if opened:
            yield workload, f"{opened} opens the machine"


def _no_api_token(installation: Installation) -> Breaches:
    bindings = installation.of_kind("RoleBinding", "ClusterRoleBinding")
    bound = {subject["name"] for binding in bindings for subject in binding["subjects"]}
    for owner, spec in [*((each, each) for each in installation.of_kind("ServiceAccount")), *installation.pods]:
        if spec.get("automountServiceAccountToken") is not False:
            yield owner, "automounts a token of the API server"
    for workload, pod in installation.pods:
        for volume in pod.get("volumes", ()):
            for source in volume.get("projected", {}).get("sources", ()):
                # One for the API server is for those alone who are bound to a role there.
                token = source.get("serviceAccountToken", {"audience": "none", "expirationSeconds": 0})
                narrow = token.get("audience") or pod["serviceAccountName"] in bound
                if token.get("expirationSeconds", MAX_TOKEN_S + 1) > MAX_TOKEN_S or not narrow:
                    yield workload, f"the token in {volume['name']} is good for too much"


def _own_account(installation: Installation) -> Breaches:
    names = [pod.get("serviceAccountName", "default") for _, pod in installation.pods]
    for (workload, _), name in zip(installation.pods, names, strict=True):
        if name not in installation.names("ServiceAccount") or names.count(name) > 1:
            yield workload, f"service account {name} is not its own"


def _probed(installation: Installation) -> Breaches:
    for workload, row, _ in installation.containers:
        if row["name"] not in UNPROBED and (missing := [name for name in PROBES if name not in row]):
            yield workload, f"{row['name']} has no {missing}"


def _sized(installation: Installation) -> Breaches:
    for workload, row, _ in installation.containers:
        sizes = {f"{kind}.{what}" for kind, given in row.get("resources", {}).items() for what in given}
        if missing := set(SIZES) - sizes:
            yield workload, f"{row['name']} lacks {missing}"


def _disrupted_one_by_one(installation: Installation) -> Breaches:
    budgets = [each["spec"]["selector"]["matchLabels"] for each in installation.of_kind("PodDisruptionBudget")]
    for workload in installation.of_kind("Deployment", "StatefulSet"):
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        if not any(budget.items() <= labels for budget in budgets):
            yield workload, "no PodDisruptionBudget selects it"


def _placed(installation: Installation) -> Breaches:
    for workload, pod in installation.pods:
        if pod.get("priorityClassName") not in installation.names("PriorityClass"):
            yield workload, f"priority class {pod.get('priorityClassName')} is not there"
        if workload["kind"] != "Job" and len(pod.get("topologySpreadConstraints", ())) < 2:
            yield workload, "all replicas may lie on one machine"


def _drained(installation: Installation) -> Breaches:
    behind = [each["spec"]["selector"] for each in installation.of_kind("Service") if "clusterIP" not in each["spec"]]
    for workload, pod in installation.pods:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        service = labels["app.kubernetes.io/component"] != "infrastructure"
        [stop_s] = {
            row.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for row in pod["containers"]
        }
        if pod.get("terminationGracePeriodSeconds", 30) <= DRAIN_S + stop_s:
            yield workload, "it is killed while it drains"
        if service and not stop_s and any(selector.items() <= labels.items() for selector in behind):
            yield workload, "it stops while it is called"


def _references(installation: Installation) -> Breaches:
    maps = installation.names("ConfigMap") | {CLUSTER_CA}
    for workload, pod in installation.pods:
        volumes = pod.get("volumes", ())
        claims = {
            volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume
        }
        sources = [source for volume in volumes for source in (volume, *volume.get("projected", {}).get("sources", ()))]
        referred = {source["configMap"]["name"] for source in sources if "configMap" in source}
        for row in pod["containers"]:
            variables = [variable.get("valueFrom", {}) for variable in row.get("env", ())]
            referred |= {source["configMapRef"]["name"] for source in row.get("envFrom", ())}
            referred |= {each["configMapKeyRef"]["name"] for each in variables if "configMapKeyRef" in each}
        if lost := (claims - installation.names("PersistentVolumeClaim")) | (referred - maps):
            yield workload, f"{lost} is not there"


def _no_secrets(installation: Installation) -> Breaches:
    for each in installation.of_kind("Secret", "Role", "ClusterRole"):
        yield each, "a Secret comes from outside, and no pod has a role of ours"


def _walled(installation: Installation) -> Breaches:
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(each["spec"] == closed for each in installation.of_kind("NetworkPolicy")):
        yield {"kind": "NetworkPolicy", "metadata": {"name": "default-deny"}}, "it is not there"


RULES: Mapping[str, Callable[[Installation], Breaches]] = {
    rule.__name__.strip("_").replace("_", "-"): rule
    for rule in (_by_digest, _confined, _no_host, _no_api_token, _own_account, _probed, _sized, _disrupted_one_by_one,
                 _placed, _drained, _references, _no_secrets, _walled)
}  # fmt: skip


def breaches(objects: Sequence[Object]) -> list[str]:
    """`RULE: KIND NAME: PROBLEM` of each breach."""
    installation = Installation(objects)
    return [
        f"{name}: {where['kind']} {where['metadata']['name']}: {problem}"
        for name, rule in RULES.items()
        for where, problem in rule(installation)
    ]
