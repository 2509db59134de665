"""The fields of manifests that the stage knows. Pure.

In: objects as `kubectl kustomize` prints them. Out: nothing, or a FieldError that names object and field. A field is
either read, or has to have the one value that means the same without a cluster, or stands in a list of what a kubelet
on one machine cannot honour (NOT_HERE, KINDS_NOT_HERE). Any other fails: what is skipped is skipped by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


class FieldError(ValueError):
    """A manifest that the stage does not start; the message names object and field, and says what to do."""


@dataclass(frozen=True, slots=True)
class Only:
    """The field has this value, and `default` where it is missing."""

    value: object
    default: object = None


@dataclass(frozen=True, slots=True)
class Each:
    """A list, or a mapping with free keys, of such values."""

    of: Any


@dataclass(frozen=True, slots=True)
class NotHere:
    """The field cannot be honoured on one machine. why: what takes its place, or why nothing is lost."""

    why: str


READ = object()
"""The field is read as it stands, whatever is in it."""
TRIED = NotHere("what it says of an upgrade; pods are started once")
PLACED = NotHere("there is one machine")
KINDS_NOT_HERE: Mapping[str, str] = {
    "Namespace": "Docker has none; the rules look at its labels",
    "PriorityClass": "nobody is evicted here",
    "PodDisruptionBudget": "nobody is evicted here",
    "NetworkPolicy": "one network; tests compute what is open and compare it with the policy",
    "Certificate": "`secrets` makes the certificate",
    "Issuer": "`secrets` makes the certificate",
}
"""Objects that are left out, with the reason."""
ITEMS = Each({"key": READ, "path": READ})
CONFIG_MAP, SECRET = {"name": READ, "items": ITEMS, "defaultMode": READ}, {"secretName": READ, "defaultMode": READ}
VOLUME = {
    "name": READ,
    "configMap": CONFIG_MAP,
    "secret": SECRET | {"items": ITEMS},
    "emptyDir": {"medium": Only("Memory"), "sizeLimit": READ},
    "persistentVolumeClaim": {"claimName": READ},
    "projected": {
        "defaultMode": READ,
        "sources": Each(
            {
                "configMap": {"name": READ, "items": ITEMS},
                "secret": {"name": READ, "items": ITEMS},
                "serviceAccountToken": {"audience": READ, "expirationSeconds": READ, "path": READ},
            }
        ),
    },
}
KEY_REF = {"name": READ, "key": READ}
PROBE = {
    "httpGet": {"path": READ, "port": READ},
    "tcpSocket": {"port": READ},
    "exec": {"command": READ},
    "initialDelaySeconds": READ,
    "timeoutSeconds": READ,
    "periodSeconds": READ,
    "failureThreshold": READ,
    "successThreshold": READ,
}
CONTAINER = {
    "name": READ,
    "image": READ,
    "imagePullPolicy": NotHere("nothing is pulled: images of this machine stand in for those of a registry"),
    "command": READ,
    "args": READ,
    "envFrom": Each({"configMapRef": {"name": READ}, "secretRef": {"name": READ}}),
    "env": Each(
        {
            "name": READ,
            "value": READ,
            "valueFrom": {"fieldRef": {"fieldPath": READ}, "configMapKeyRef": KEY_REF, "secretKeyRef": KEY_REF},
        }
    ),
    "resources": {
        "requests": {"cpu": READ, "memory": NotHere("a scheduler reads it; there is one machine")},
        "limits": {"cpu": READ, "memory": READ},
    },
    "securityContext": {
        "allowPrivilegeEscalation": READ,
        "capabilities": {"drop": READ},
        "privileged": Only(value=False, default=False),
        "readOnlyRootFilesystem": READ,
    },
    "volumeMounts": Each({"name": READ, "mountPath": READ, "readOnly": READ}),
    "ports": Each({"name": READ, "containerPort": READ}),
    "startupProbe": PROBE,
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "lifecycle": {"preStop": {"sleep": {"seconds": READ}}},
    "terminationMessagePolicy": NotHere("Docker keeps the whole log"),
}
METADATA = {"name": READ, "namespace": READ, "labels": READ, "annotations": READ}
TEMPLATE = {
    "metadata": {"labels": READ},
    "spec": {
        "serviceAccountName": READ,
        "automountServiceAccountToken": Only(value=False, default=True),
        "enableServiceLinks": Only(value=False, default=True),
        "priorityClassName": NotHere("nobody is evicted here"),
        "terminationGracePeriodSeconds": READ,
        "restartPolicy": READ,
        "securityContext": {
            "runAsNonRoot": READ,
            "runAsUser": READ,
            "runAsGroup": READ,
            "fsGroup": READ,
            "fsGroupChangePolicy": NotHere("volumes are new"),
            "seccompProfile": {"type": Only("RuntimeDefault")},
        },
        "initContainers": Each(CONTAINER),
        "containers": Each(CONTAINER),
        "volumes": Each(VOLUME),
        "hostAliases": Each({"ip": READ, "hostnames": READ}),
        "topologySpreadConstraints": PLACED,
        "affinity": PLACED,
        "nodeSelector": PLACED,
        "tolerations": PLACED,
    },
}
SELECTOR = {"matchLabels": READ}
CLAIM = {
    "accessModes": Only(["ReadWriteOnce"]),
    "resources": {"requests": {"storage": NotHere("Docker bounds no volume of a disk")}},
}
KINDS: Mapping[str, Any] = {
    "Deployment": {
        "metadata": METADATA,
        "spec": {
            "replicas": READ,
            "selector": SELECTOR,
            "template": TEMPLATE,
            "strategy": TRIED,
            "revisionHistoryLimit": TRIED,
        },
    },
    "StatefulSet": {
        "metadata": METADATA,
        "spec": {
            "replicas": READ,
            "selector": SELECTOR,
            "template": TEMPLATE,
            "serviceName": READ,
            "podManagementPolicy": READ,
            "volumeClaimTemplates": Each({"metadata": {"name": READ}, "spec": CLAIM}),
            "revisionHistoryLimit": TRIED,
        },
    },
    "Job": {
        "metadata": METADATA,
        "spec": {
            "backoffLimit": READ,
            "template": TEMPLATE,
            "ttlSecondsAfterFinished": NotHere("the stage does not stand for so long"),
        },
    },
    "Service": {
        "metadata": METADATA,
        "spec": {
            "selector": READ,
            "clusterIP": Only("None"),
            "publishNotReadyAddresses": NotHere("names lead to pods from their start"),
            "ports": Each({"name": READ, "port": READ, "targetPort": READ}),
        },
    },
    "ConfigMap": {"metadata": METADATA, "data": READ, "binaryData": READ},
    "Secret": {"metadata": METADATA, "type": READ, "data": READ, "stringData": READ},
    "PersistentVolumeClaim": {"metadata": METADATA, "spec": CLAIM},
    "ServiceAccount": {
        "metadata": METADATA,
        "automountServiceAccountToken": Only(value=False, default=True),
        "imagePullSecrets": NotHere("nothing is pulled"),
    },
    "ClusterRoleBinding": {"metadata": METADATA, "roleRef": READ, "subjects": READ},
}
"""Fields of each kind that is started or read."""


def check(objects: list[Object]) -> None:
    """Every field of every object is known. Raises FieldError."""
    for one in objects:
        kind, name = str(one.get("kind")), one.get("metadata", {}).get("name")
        if kind in KINDS_NOT_HERE:
            continue
        if kind not in KINDS:
            raise FieldError(
                f"{kind} {name}: the stage does not know this kind; teach it, or name it with its reason in "
                "KINDS_NOT_HERE (infra/bulkhead_infra/stages/manifests/fields.py)"
            )
        given = {key: value for key, value in one.items() if key not in ("apiVersion", "kind")}
        _fits(f"{kind} {name}: ", "", given, KINDS[kind])


def _fits(whose: str, path: str, value: Any, known: Any) -> None:
    match known:
        case Only():
            if value != known.value:
                raise FieldError(
                    f"{whose}{path} is {value!r}; the stage starts pods with {known.value!r} alone: write that, or "
                    "teach it the other"
                )
        case Each():
            for number, one in enumerate(value):
                _fits(whose, f"{path}[{number}]", one, known.of)
        case dict():
            _fits_fields(whose, path, value, known)


def _fits_fields(whose: str, path: str, value: Any, known: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        raise FieldError(f"{whose}{path} is {value!r}; it has the fields {', '.join(known)}")
    for key, one in value.items():
        place = f"{path}.{key}".lstrip(".")
        if key not in known:
            raise FieldError(
                f"{whose}the stage does not know the field {place}: teach it, or name it with its reason as one that "
                "cannot be honoured here (infra/bulkhead_infra/stages/manifests/fields.py)"
            )
        _fits(whose, place, one, known[key])
    for key, rule in known.items():
        if isinstance(rule, Only) and key not in value and rule.default is not None and rule.default != rule.value:
            raise FieldError(
                f"{whose}{f'{path}.{key}'.lstrip('.')} is missing, which means {rule.default!r}; write {rule.value!r}"
            )
