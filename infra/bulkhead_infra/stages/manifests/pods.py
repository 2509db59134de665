"""Pods as manifests describe them. Pure.

In: objects whose fields are all known (fields.py), Secrets among them. Out: `Pod`s in the order of the objects: every
container with its command, environment, user, limits, mounts and probes; names under which others find it. A reference
that leads nowhere is a FieldError that names workload and reference, as a pod's event would.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bulkhead_infra.stages.manifests import fields
from bulkhead_infra.stages.manifests.contents import Maps, is_written
from bulkhead_infra.stages.manifests.fields import FieldError, Object

WORKLOADS = ("Deployment", "StatefulSet", "Job")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
GRACE_S, BACKOFF_LIMIT = 30, 6
"""As Kubernetes has them where nothing is said."""
REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")
UNITS = {"m": Decimal("0.001"), "": Decimal(1), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|)")
CLUSTER = "cluster.local"


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe. ask: `http`, `tcp` or `exec`, with path and port, port, or command."""

    ask: str
    port: int = 0
    path: str = ""
    command: tuple[str, ...] = ()
    delay_s: float = 0
    timeout_s: float = 1
    period_s: float = 10
    failures: int = 3
    successes: int = 1


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of the pod at a path of a container."""

    volume: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """One container. command, args: None leaves what the image has. memory_bytes, cpus: 0 is without a limit."""

    name: str
    image: str
    command: tuple[str, ...] | None
    args: tuple[str, ...] | None
    environment: Mapping[str, str]
    user: int
    group: int
    read_only: bool
    may_gain: bool
    drops: tuple[str, ...]
    memory_bytes: int
    cpus: Decimal
    cpu_request: Decimal
    mounts: tuple[Mount, ...]
    ports: Mapping[str, int]
    probes: Mapping[str, Probe]
    pre_stop_s: float


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. volumes: as the manifest has them, by name; claims: {name of a volume: name of the claim}. names: under
    which others find it. restart: Always, OnFailure or Never."""

    name: str
    owner: str
    kind: str
    namespace: str
    account: str
    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    before: tuple[Container, ...]
    volumes: Mapping[str, Object]
    claims: Mapping[str, str]
    names: tuple[str, ...]
    hosts: Mapping[str, str]
    fs_group: int
    grace_s: int
    restart: str
    retries: int

    @property
    def container(self) -> Container:
        """The one container; fields of several are refused."""
        return self.containers[0]


def read(objects: Sequence[Object]) -> list[Pod]:
    """All pods. Raises FieldError."""
    fields.check(list(objects))
    maps, made = Maps(objects), []
    for one in objects:
        if one["kind"] in WORKLOADS:
            made += [_pod(one, number, objects, maps) for number in range(one["spec"].get("replicas", 1))]
    return made


def _pod(workload: Object, number: int, objects: Sequence[Object], maps: Maps) -> Pod:
    template, where = workload["spec"]["template"], f"{workload['kind']} {workload['metadata']['name']}"
    spec, name = template["spec"], _name(workload, number)
    namespace = workload["metadata"].get("namespace", "default")
    labels = template["metadata"]["labels"]
    if workload["kind"] != "Job" and not workload["spec"]["selector"]["matchLabels"].items() <= labels.items():
        raise FieldError(f"{where}: its selector does not choose its own pods: give them the same labels")
    ordered = workload["kind"] == "StatefulSet" and workload["spec"].get("podManagementPolicy") != "Parallel"
    if ordered and number:
        raise FieldError(f"{where}: its pods wait for each other; the stage starts all at once (Parallel)")
    if lost := [key for key in ("runAsUser", "runAsGroup", "fsGroup") if key not in spec.get("securityContext", {})]:
        raise FieldError(
            f"{where} has no {lost[0]} in its securityContext: say under whom it runs and who reads its files"
        )
    if len(spec["containers"]) != 1:
        raise FieldError(f"{where} has {len(spec['containers'])} containers; the stage starts pods of one")
    account = spec.get("serviceAccountName", "default")
    if (account, namespace) not in {
        (one["metadata"]["name"], one["metadata"].get("namespace", "default"))
        for one in objects
        if one["kind"] == "ServiceAccount"
    }:
        raise FieldError(f"{where}: there is no ServiceAccount {account} in the namespace {namespace}")
    claims = _claims(workload, name, objects)
    volumes = {one["name"]: one for one in spec.get("volumes", ())} | {one: {"name": one} for one in claims}
    facts = {"metadata.name": name, "metadata.namespace": namespace, "spec.serviceAccountName": account}
    own = [_container(where, one, spec, facts, maps, volumes) for one in spec["containers"]]
    before = [_container(where, one, spec, facts, maps, volumes) for one in spec.get("initContainers", ())]
    return Pod(
        name=name,
        owner=workload["metadata"]["name"],
        kind=workload["kind"],
        namespace=namespace,
        account=account,
        labels=labels,
        containers=tuple(own),
        before=tuple(before),
        volumes=volumes,
        claims=claims,
        names=tuple(_names(workload, name, namespace, own[0], objects)),
        hosts={host: row["ip"] for row in spec.get("hostAliases", ()) for host in row["hostnames"]},
        fs_group=spec["securityContext"]["fsGroup"],
        grace_s=spec.get("terminationGracePeriodSeconds", GRACE_S),
        restart=spec.get("restartPolicy", "Always"),
        retries=workload["spec"].get("backoffLimit", BACKOFF_LIMIT),
    )


def _name(workload: Object, number: int) -> str:
    """As its controller names it: by rank, or with a digest of its template and a few characters of its own."""
    name = str(workload["metadata"]["name"])
    if workload["kind"] == "StatefulSet":
        return f"{name}-{number}"
    digest = hashlib.sha256(json.dumps(workload["spec"]["template"], sort_keys=True).encode()).hexdigest()
    own = hashlib.sha256(f"{digest}{number}".encode()).hexdigest()[:5]
    return f"{name}-{own}" if workload["kind"] == "Job" else f"{name}-{digest[:9]}-{own}"


def _claims(workload: Object, pod: str, objects: Sequence[Object]) -> dict[str, str]:
    made = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    found = {}
    for one in workload["spec"]["template"]["spec"].get("volumes", ()):
        if "persistentVolumeClaim" in one:
            found[one["name"]] = one["persistentVolumeClaim"]["claimName"]
            if found[one["name"]] not in made:
                raise FieldError(
                    f"{workload['kind']} {workload['metadata']['name']}: there is no PersistentVolumeClaim "
                    f"{found[one['name']]}"
                )
    for one in workload["spec"].get("volumeClaimTemplates", ()):
        found[one["metadata"]["name"]] = f"{one['metadata']['name']}-{pod}"
    return found


def _names(workload: Object, pod: str, namespace: str, own: Container, objects: Sequence[Object]) -> list[str]:
    """Names of the services that choose it, and its own at the service that governs it."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    governed, found = workload["spec"].get("serviceName"), []
    for one in objects:
        if one["kind"] == "Service" and one["spec"]["selector"].items() <= labels.items():
            service = one["metadata"]["name"]
            found += _long(service, namespace)
            if service == governed:
                found += _long(f"{pod}.{service}", namespace)
            for port in one["spec"].get("ports", ()):
                _same_port(service, port, own)
    if governed and governed not in found:
        raise FieldError(f"StatefulSet {workload['metadata']['name']}: no Service {governed} chooses its pods")
    return found


def _long(name: str, namespace: str) -> list[str]:
    return [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.{CLUSTER}"]


def _same_port(service: str, port: Object, own: Container) -> None:
    """Names lead to the pod itself here, so that the service's port has to be the container's."""
    target = port.get("targetPort", port["port"])
    number = own.ports.get(target, 0) if isinstance(target, str) else target
    if number not in own.ports.values():
        raise FieldError(f"Service {service}: port {target} is none of container {own.name}")
    if number != port["port"]:
        raise FieldError(f"Service {service}: port {port['port']} leads to {number}; the stage knows equal ones alone")


def _container(
    where: str, one: Object, spec: Object, facts: Mapping[str, str], maps: Maps, volumes: Mapping[str, Object]
) -> Container:
    walls, pod = one["securityContext"], spec["securityContext"]
    environment = _environment(where, one, facts, maps)
    if pod.get("runAsNonRoot") and not pod.get("runAsUser"):
        raise FieldError(f"{where}: runAsNonRoot, and runAsUser is no user but root: name another")
    if lost := [row["name"] for row in one["volumeMounts"] if row["name"] not in volumes]:
        raise FieldError(f"{where}: container {one['name']} mounts the volume {lost[0]}, which the pod does not have")
    mounts = tuple(
        # Nobody writes into what the kubelet writes.
        Mount(row["name"], row["mountPath"], row.get("readOnly", False) or is_written(volumes[row["name"]]))
        for row in one["volumeMounts"]
    )
    resources, ports = one["resources"], {row["name"]: row["containerPort"] for row in one.get("ports", ())}
    return Container(
        name=one["name"],
        image=one["image"],
        command=_words(one.get("command"), environment),
        args=_words(one.get("args"), environment),
        environment=environment,
        user=pod["runAsUser"],
        group=pod["runAsGroup"],
        read_only=walls.get("readOnlyRootFilesystem", False),
        may_gain=walls.get("allowPrivilegeEscalation", True),
        drops=tuple(walls.get("capabilities", {}).get("drop", ())),
        memory_bytes=int(quantity(resources.get("limits", {}).get("memory", "0"))),
        cpus=quantity(resources.get("limits", {}).get("cpu", "0")),
        cpu_request=quantity(resources.get("requests", {}).get("cpu", "0")),
        mounts=mounts,
        ports=ports,
        probes={kind: _probe(where, one[kind], ports) for kind in PROBES if kind in one},
        pre_stop_s=one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0),
    )


def _environment(where: str, one: Object, facts: Mapping[str, str], maps: Maps) -> dict[str, str]:
    """Later ones win, a container's own over those of whole maps; a value may name what stands before it."""
    found: dict[str, str] = {}
    for source in one.get("envFrom", ()):
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if key in source:
                found |= {name: value.decode() for name, value in maps.get(where, kind, source[key]["name"]).items()}
    for row in one.get("env", ()):
        found[row["name"]] = _value(where, row, facts, maps, found)
    return found


def _value(where: str, row: Object, facts: Mapping[str, str], maps: Maps, before: Mapping[str, str]) -> str:
    given = row.get("valueFrom", {})
    if "fieldRef" in given:
        path = given["fieldRef"]["fieldPath"]
        if path not in facts:
            raise FieldError(f"{where}: variable {row['name']} wants {path}; the stage knows {', '.join(facts)}")
        return facts[path]
    for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if key in given:
            wanted = given[key]
            content = maps.get(where, kind, wanted["name"])
            if wanted["key"] not in content:
                raise FieldError(f"{where}: {kind} {wanted['name']} has no key {wanted['key']}")
            return content[wanted["key"]].decode()
    return expanded(row.get("value", ""), before)


def _words(words: Sequence[str] | None, environment: Mapping[str, str]) -> tuple[str, ...] | None:
    return None if words is None else tuple(expanded(word, environment) for word in words)


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) becomes the variable's value, $$ one dollar; a name that is unknown stays as it is."""

    def put(match: re.Match[str]) -> str:
        return "$" if match[1] is None else environment.get(match[1], match[0])

    return REFERENCE.sub(put, text)


def quantity(text: str) -> Decimal:
    """A number with Kubernetes' units. Raises FieldError."""
    match = QUANTITY.fullmatch(str(text))
    if match is None:
        raise FieldError(
            f"{text!r} is no quantity that the stage knows; write it with {', '.join(filter(None, UNITS))}"
        )
    return Decimal(match[1]) * UNITS[match[2]]


def _probe(where: str, row: Object, ports: Mapping[str, int]) -> Probe:
    def number(port: Any) -> int:
        if isinstance(port, str) and port not in ports:
            raise FieldError(f"{where}: a probe asks port {port}, and the container has {', '.join(ports) or 'none'}")
        return ports[port] if isinstance(port, str) else int(port)

    asked: dict[str, Any]
    if "httpGet" in row:
        asked = {"ask": "http", "port": number(row["httpGet"]["port"]), "path": row["httpGet"].get("path", "/")}
    elif "tcpSocket" in row:
        asked = {"ask": "tcp", "port": number(row["tcpSocket"]["port"])}
    elif "exec" in row:
        asked = {"ask": "exec", "command": tuple(row["exec"]["command"])}
    else:
        raise FieldError(f"{where}: a probe asks nothing: write httpGet, tcpSocket or exec")
    return Probe(
        **asked,
        delay_s=row.get("initialDelaySeconds", 0),
        timeout_s=row.get("timeoutSeconds", 1),
        period_s=row.get("periodSeconds", 10),
        failures=row.get("failureThreshold", 3),
        successes=row.get("successThreshold", 1),
    )
