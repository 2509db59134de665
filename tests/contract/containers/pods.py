"""Pods as the chart and its Secrets describe them: what each container gets. Nothing is started.

In: objects as Helm renders them, Secrets among them. Out: a `Pod` per replica, with variables, files,
ports, probes and the names under which others find it. A reference that leads nowhere is a ManifestError.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.unit.infra.kubernetes.rules import PROBES, WORKLOADS

Object = dict[str, Any]
REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
SOURCES = {"configMap": "ConfigMap", "secret": "Secret"}


class ManifestError(ValueError):
    """A reference that leads nowhere; the message names who refers to what."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of the pod at a path of a container. files: those that the manifests put there, by path."""

    path: str
    read_only: bool
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Container:
    """One container. command, args: None leaves what the image has. ports, probes: by name."""

    name: str
    image: str
    command: list[str] | None
    args: list[str] | None
    environment: Mapping[str, str]
    user: str
    mounts: Sequence[Mount]
    ports: Mapping[str, int]
    probes: Mapping[str, Object]

    def port(self, wanted: str | int) -> int:
        """Number of a port that is named or numbered. Raises ManifestError."""
        number = self.ports.get(wanted) if isinstance(wanted, str) else wanted
        if number is None or number not in self.ports.values():
            raise ManifestError(f"port {wanted} is none of container {self.name}: {dict(self.ports)}")
        return number


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. names: of the Services that choose it, and its own at the Service that governs it."""

    name: str
    owner: str
    containers: Sequence[Container]
    names: Sequence[str]


def read_pods(objects: Sequence[Object]) -> list[Pod]:
    """All pods. Raises ManifestError."""
    contents = {(entry["kind"], entry["metadata"]["name"]): _content(entry) for entry in objects}
    pods = []
    for workload in objects:
        if workload["kind"] in WORKLOADS:
            for number in range(workload["spec"].get("replicas", 1)):
                pods.append(_pod(workload, f"{workload['metadata']['name']}-{number}", objects, contents))
    return pods


Contents = Mapping[tuple[str, str], Mapping[str, bytes]]


def _content(entry: Object) -> dict[str, bytes]:
    encoded = entry.get("data" if entry["kind"] == "Secret" else "binaryData") or {}
    plain = entry.get("stringData" if entry["kind"] == "Secret" else "data") or {}
    decoded = {key: base64.b64decode(value) for key, value in encoded.items()}
    return decoded | {key: str(value).encode() for key, value in plain.items()}


def _pod(workload: Object, name: str, objects: Sequence[Object], contents: Contents) -> Pod:
    template = workload["spec"]["template"]
    spec, labels = template["spec"], template["metadata"]["labels"]
    rows = [*spec.get("initContainers", ()), *spec["containers"]]
    volumes = {entry["name"]: entry for entry in spec.get("volumes", ())}
    volumes |= {entry["metadata"]["name"]: {} for entry in workload["spec"].get("volumeClaimTemplates", ())}
    containers = [_container(name, row, spec, volumes, contents) for row in rows]
    services = [
        entry for entry in objects if entry["kind"] == "Service" and entry["spec"]["selector"].items() <= labels.items()
    ]
    for service in services:
        for port in service["spec"].get("ports", ()):
            if containers[-1].port(port.get("targetPort", port["port"])) != port["port"]:
                raise ManifestError(f"Service {service['metadata']['name']}: port {port['port']} leads to another")
    names = [entry["metadata"]["name"] for entry in services]
    governing = workload["spec"].get("serviceName")
    if governing and governing not in names:
        raise ManifestError(f"{name}: no Service {governing} chooses its pods")
    return Pod(
        name, workload["metadata"]["name"], containers, [*names, *([f"{name}.{governing}"] if governing else [])]
    )


def _container(pod: str, row: Object, spec: Object, volumes: Mapping[str, Object], contents: Contents) -> Container:
    facts = {"metadata.name": pod, "spec.serviceAccountName": spec["serviceAccountName"]}
    environment = _environment(pod, row, facts, contents)
    if lost := [entry["name"] for entry in row["volumeMounts"] if entry["name"] not in volumes]:
        raise ManifestError(f"{pod}: container {row['name']} mounts the volume {lost[0]}, which the pod does not have")

    def expand(words: list[str] | None) -> list[str] | None:
        return words and [REFERENCE.sub(lambda match: environment.get(match[1], match[0]), word) for word in words]

    mounts = []
    for entry in row["volumeMounts"]:
        files = _files(pod, volumes[entry["name"]], contents)
        mounts.append(Mount(entry["mountPath"], bool(entry.get("readOnly") or files), files))
    return Container(
        name=row["name"],
        image=row["image"],
        command=expand(row.get("command")),
        args=expand(row.get("args")),
        environment=environment,
        user="{runAsUser}:{runAsGroup}".format(**spec["securityContext"]),
        mounts=mounts,
        ports={entry["name"]: entry["containerPort"] for entry in row.get("ports", ())},
        probes={kind: row[kind] for kind in PROBES if kind in row},
    )


def _environment(pod: str, row: Object, facts: Mapping[str, str], contents: Contents) -> dict[str, str]:
    """Variables by name; later ones win, a container's own over those of whole maps."""
    environment: dict[str, str] = {}
    for source in row.get("envFrom", ()):
        [(kind, reference)] = source.items()
        content = _referred(pod, SOURCES[kind.removesuffix("Ref")], reference["name"], contents)
        environment |= {key: value.decode() for key, value in content.items()}
    for variable in row.get("env", ()):
        value = str(variable.get("value", ""))
        for kind, reference in variable.get("valueFrom", {}).items():
            if kind == "fieldRef":
                value = facts[reference["fieldPath"]]
            else:
                content = _referred(pod, SOURCES[kind.removesuffix("KeyRef")], reference["name"], contents)
                value = _key(pod, reference["name"], reference["key"], content).decode()
        environment[variable["name"]] = REFERENCE.sub(lambda match: environment.get(match[1], match[0]), value)
    return environment


def _files(pod: str, volume: Object, contents: Contents) -> dict[str, bytes]:
    """Files that the manifests put into a volume; a token is a word that stands for one."""
    files: dict[str, bytes] = {}
    for source in volume.get("projected", {}).get("sources", (volume,)):
        if token := source.get("serviceAccountToken"):
            files[token["path"]] = b"token"
        for kind in SOURCES.keys() & source.keys():
            row = source[kind]
            name = row.get("secretName") or row["name"]
            content = _referred(pod, SOURCES[kind], name, contents)
            items = row.get("items") or [{"key": key, "path": key} for key in content]
            files |= {entry["path"]: _key(pod, name, entry["key"], content) for entry in items}
    return files


def _referred(pod: str, kind: str, name: str, contents: Contents) -> Mapping[str, bytes]:
    if (kind, name) not in contents:
        raise ManifestError(f"{pod}: there is no {kind} {name}")
    return contents[kind, name]


def _key(pod: str, name: str, key: str, content: Mapping[str, bytes]) -> bytes:
    if key not in content:
        raise ManifestError(f"{pod}: {name} has no key {key}")
    return content[key]
