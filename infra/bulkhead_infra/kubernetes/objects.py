"""Parts that all manifests share: names, labels, containers, volumes, and YAML text. Pure.

In: names and numbers. Out: dicts as Kubernetes has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bulkhead.runtime.settings import ServiceSettings

Object = dict[str, Any]

FOLDER = "infra/kubernetes"
HEAD = "# Rendered by `make render`. Do not edit: what is yours goes into an overlay of your own.\n"
NAMESPACE = "bulkhead"
IDENTITY, DATA = "/bulkhead/identity", "/bulkhead/data"
IMAGES = "bulkhead"
USER = 10001
HEALTH_PORT = 8081
TMP_MIB = 64
PRE_STOP_S = 5
"""Seconds that a pod behind a Service goes on after it was told to end, until nobody is sent to it any more."""
MARGIN_S = 5
"""Beyond the drain, before a process is killed."""
TOKEN_FOLDER, TOKEN_AUDIENCE, TOKEN_S = "/var/run/secrets/bulkhead/bus", "bulkhead-bus", 3600
CRITICAL, STANDARD = "bulkhead-critical", "bulkhead-standard"
TLS_SECRET = "bulkhead-nats-tls"  # noqa: S105 - a name
CLUSTER_CA = "kube-root-ca.crt"
"""The ConfigMap with the API server's CA, which Kubernetes puts into every namespace."""
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
PART = {"app.kubernetes.io/part-of": "bulkhead"}
INFRASTRUCTURE = "infrastructure"
SHARED_LABELS = PART | {COMPONENT: INFRASTRUCTURE}
"""Labels of an object of no workload: an upgrade applies objects by component, and leaves out one without."""
REPLICAS_NOTE = "bulkhead.dev/replicas"
"""Annotation of a workload whose replicas are not all alike, or may not be several."""


def name_of(service: str) -> str:
    """The name of a service in Kubernetes, where underscores are not allowed."""
    return service.replace("_", "-")


def labels(name: str, component: str) -> dict[str, str]:
    return {NAME: name, **PART, COMPONENT: component}


def selector(name: str) -> dict[str, str]:
    return {NAME: name, **PART}


def metadata(name: str, component: str, **annotations: str) -> Object:
    found: Object = {"name": name, "labels": labels(name, component)}
    return found | ({"annotations": annotations} if annotations else {})


def service_account(name: str, component: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, component),
        "automountServiceAccountToken": False,
    }


def container(
    name: str,
    image: str,
    *,
    env: Sequence[Object],
    mounts: Sequence[Object],
    memory_mib: int,
    cpu_milli: int,
    shared_settings: bool = True,
) -> Object:
    """One container with the walls that all have: nobody is root, nothing is writable but what is mounted."""
    found: Object = {"name": name, "image": f"{IMAGES}/{image}", "imagePullPolicy": "IfNotPresent"}
    if shared_settings:
        found["envFrom"] = [{"configMapRef": {"name": "bulkhead-settings"}}]
    if env:
        found["env"] = list(env)
    return found | {
        "resources": {
            "requests": {"cpu": f"{cpu_milli}m", "memory": f"{memory_mib}Mi"},
            "limits": {"cpu": "1", "memory": f"{memory_mib}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the container's own
        # A process that ends with an error leaves its last lines in the pod's status, for whoever may not read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def pod(
    name: str,
    component: str,
    containers: Sequence[Object],
    volumes: Sequence[Object],
    *,
    grace_s: int,
    critical: bool,
    spread: bool = True,
    restart: str = "Always",
) -> Object:
    """A pod template's content: restricted Pod Security, no token of the API server, spread over machines."""
    spec: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": CRITICAL if critical else STANDARD,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [*volumes, tmp_volume()],
    }
    if spread:
        spec["topologySpreadConstraints"] = [_spread(name, key) for key in ("kubernetes.io/hostname", ZONE)]
    if restart != "Always":
        spec["restartPolicy"] = restart
    return {"metadata": {"labels": labels(name, component)}, "spec": spec}


ZONE = "topology.kubernetes.io/zone"


def _spread(name: str, key: str) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(name)},
    }


def tmp_volume() -> Object:
    return {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": f"{TMP_MIB}Mi"}}


def identity_volume(owner: str, more: Sequence[Object] = ()) -> Object:
    """A volume of one owner alone: its Secret, and the certificate of the broker's CA."""
    sources = [
        {"secret": {"name": f"bulkhead-{owner}"}},
        {"secret": {"name": TLS_SECRET, "items": [{"key": "ca.crt", "path": "ca.pem"}]}},
        *more,
    ]
    return {"name": "identity", "projected": {"defaultMode": 0o440, "sources": sources}}


def token_volume() -> Object:
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_S, "path": "token"}
    return {"name": "bus-token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}


def mount(volume: str, path: str, *, read_only: bool = True) -> Object:
    return {"name": volume, "mountPath": path} | ({"readOnly": True} if read_only else {})


def variables(values: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items()]


def pod_name(variable: str) -> Object:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


def from_map(variable: str, config_map: str) -> Object:
    """One variable of a ConfigMap, under its own name."""
    return {"name": variable, "valueFrom": {"configMapKeyRef": {"name": config_map, "key": variable}}}


def claim(name: str, size: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def disruption_budget(name: str, component: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, component),
        "spec": {
            "maxUnavailable": 1,
            # A pod that is not ready anyway does not keep a machine from being emptied.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(name)},
        },
    }


def grace_s(*, behind_service: bool = False) -> int:
    """Seconds from SIGTERM to SIGKILL: the drain of a service and a margin."""
    drain = int(ServiceSettings.model_fields["drain_timeout_s"].default)
    return drain + MARGIN_S + (PRE_STOP_S if behind_service else 0)


def kustomization(**fields: object) -> Object:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def component(**fields: object) -> Object:
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", **fields}


class _Dumper(yaml.SafeDumper):
    """Every text over several lines as a block, and nothing as an anchor."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def text(*objects: Object, comment: str = "") -> str:
    """YAML documents under the head that all rendered files have."""
    return HEAD + "".join(f"# {line}\n" for line in comment.splitlines()) + documents(*objects)


def documents(*objects: Object) -> str:
    """YAML documents."""
    return "---\n".join(map(plain, objects))


def plain(value: object) -> str:
    """One value as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
