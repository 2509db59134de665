"""Workloads beside the services: brokers, Redis, sentinels, upkeep, the Job that makes streams, the offline model.

In: sizes. Out: objects for the components that hold them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.network import MODEL, MONITOR, NATS, REDIS, ROUTES, SENTINEL
from bulkhead_infra.kubernetes.objects import DATA, IDENTITY, Object
from bulkhead_infra.nats.configuration import WHO

KIND = objects.INFRASTRUCTURE
BROKERS = 3
BROKER_GRACE_S = 30
CATCH_UP_S = 900
"""Time in which a broker reads its store and catches up with the others."""
STORE_GIB, STORE_ROOM_GIB = 50, 5
"""Disk of each broker, and what of it is not for streams."""
REDIS_SERVERS = ("redis-0.redis", "redis-1.redis")
SENTINELS = 3
NO_PROBE = "bulkhead.dev/no-probe"
"""Annotation of a workload that cannot be probed, with the reason."""
DAY_S = 86_400
PROVISIONER = "provisioner"


def brokers() -> list[str]:
    """Host names of all brokers."""
    return [f"nats-{number}.nats" for number in range(BROKERS)]


def nats_url(names: Sequence[str]) -> str:
    return ",".join(f"tls://{name}:{NATS}" for name in names)


def nats() -> list[Object]:
    """The brokers: a StatefulSet, each with its own disk."""
    tls = [("tls.crt", "broker.pem"), ("tls.key", "broker.key")]
    identity = objects.identity_volume(
        "nats",
        (
            {"secret": {"name": objects.TLS_SECRET, "items": [{"key": key, "path": path} for key, path in tls]}},
            {"configMap": {"name": "bulkhead-broker"}},
        ),
    )
    container = objects.container(
        "nats",
        "nats",
        env=[objects.pod_name(WHO)],
        mounts=[objects.mount("identity", IDENTITY), objects.mount("data", DATA, read_only=False)],
        memory_mib=1024,
        cpu_milli=500,
        shared_settings=False,
    )
    container |= {
        # A broker has started once its streams have caught up: a rolling restart takes no second one before that.
        "startupProbe": _http("/healthz", periodSeconds=5, failureThreshold=CATCH_UP_S // 5),
        "livenessProbe": _http("/healthz?js-enabled-only=true", periodSeconds=10, failureThreshold=3),
        "readinessProbe": _http("/healthz?js-server-only=true", periodSeconds=5, failureThreshold=2),
    }
    ports = {"nats": NATS, "routes": ROUTES, "monitor": MONITOR}
    return _stateful("nats", BROKERS, container, identity, ports, grace_s=BROKER_GRACE_S, disk=f"{STORE_GIB}Gi")


def redis() -> list[Object]:
    """One Redis. Its content is a cache, made again of the journal."""
    container = _redis_container("redis", 512)
    container["volumeMounts"].insert(1, objects.mount("data", DATA, read_only=False))
    container |= _redis_probes("redis", REDIS)
    return _stateful("redis", 1, container, _redis_identity(), {"redis": REDIS}, grace_s=15, disk="2Gi")


def sentinel() -> list[Object]:
    """Three that watch two Redis, and make the replica the master when the master is gone."""
    container = _redis_container("sentinel", 64) | {"args": ["sentinel"], "env": _redis_servers()}
    container |= _redis_probes("sentinel", SENTINEL)
    return _stateful("sentinel", SENTINELS, container, _redis_identity(), {"sentinel": SENTINEL}, grace_s=15)


def watched_redis() -> Object:
    """A patch: the Redis becomes two, master and replica."""
    container = {
        "name": "redis",
        "args": ["server", "$(POD_NAME).redis"],
        "env": [objects.pod_name("POD_NAME"), *_redis_servers()],
    }
    note = "One is the master and one its replica, which stands by; the sentinels say which."
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis", "annotations": {objects.REPLICAS_NOTE: note}},
        "spec": {"replicas": len(REDIS_SERVERS), "template": {"spec": {"containers": [container]}}},
    }


def upkeep() -> list[Object]:
    """Regular upkeep: one process, with a disk for what only the journal had."""
    container = _provisioner("upkeep", ["upkeep"], 256)
    container["volumeMounts"].insert(1, objects.mount("data", DATA, read_only=False))
    volumes = [objects.identity_volume("upkeep"), {"name": "data", "persistentVolumeClaim": {"claimName": "upkeep"}}]
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": objects.selector("upkeep")},
        "strategy": {"type": "Recreate"},
        "template": objects.pod("upkeep", KIND, [container], volumes, grace_s=15, critical=False),
    }
    notes = {
        objects.REPLICAS_NOTE: "One alone: two would purge and compare at the same time. Tasks do not wait for it.",
        NO_PROBE: "It listens nowhere, and ends when it cannot go on.",
    }
    disk: Object = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **objects.claim("upkeep", "1Gi")}
    disk["metadata"] = objects.metadata("upkeep", KIND)
    return [
        objects.service_account("upkeep", KIND),
        disk,
        _workload("Deployment", "upkeep", spec, notes),
        objects.disruption_budget("upkeep", KIND),
    ]


def provision_streams(*settings: Mapping[str, str]) -> list[Object]:
    """Makes streams and durables; a second time it changes nothing. settings: what its ConfigMaps hold in our overlays.

    A Job's template can never be changed, and names of ConfigMaps follow their content: the Job has another name when
    its content or those settings are others, and the images' transformer adds the digest of its image."""
    name = "provision-streams"
    template = objects.pod(
        name,
        KIND,
        [_provisioner(name, ["streams"], 256)],
        [objects.identity_volume(PROVISIONER)],
        grace_s=15,
        critical=False,
        spread=False,
        restart="OnFailure",
    )
    digest = hashlib.sha256(json.dumps([template, *settings], sort_keys=True).encode()).hexdigest()[:8]
    notes = {NO_PROBE: "It runs to its end."}
    job = _workload("Job", name, {"backoffLimit": 20, "ttlSecondsAfterFinished": DAY_S, "template": template}, notes)
    job["apiVersion"] = "batch/v1"
    job["metadata"]["name"] = f"{name}-{digest}"
    return [objects.service_account(name, KIND), job]


def offline_model() -> list[Object]:
    """The rule-based model, for trying the mesh without a provider."""
    container = objects.container(
        "offline-model", "offline-model", env=[], mounts=[], memory_mib=512, cpu_milli=100, shared_settings=False
    )
    container |= {
        "args": ["--host", "0.0.0.0", "--port", str(MODEL)],  # noqa: S104
        "ports": _ports(http=MODEL),
        "startupProbe": _http("/livez", "http", periodSeconds=2, failureThreshold=30),
        "livenessProbe": _http("/livez", "http", periodSeconds=10, failureThreshold=3),
        "readinessProbe": _http("/livez", "http", periodSeconds=5, failureThreshold=2),
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": objects.selector("offline-model")},
        "template": objects.pod("offline-model", KIND, [container], [], grace_s=15, critical=False),
    }
    service = _headless("offline-model", http=MODEL)
    service["spec"] = {"selector": service["spec"]["selector"], "ports": service["spec"]["ports"]}
    return [
        objects.service_account("offline-model", KIND),
        _workload("Deployment", "offline-model", spec),
        service,
        objects.disruption_budget("offline-model", KIND),
    ]


def _provisioner(name: str, args: list[str], memory_mib: int) -> Object:
    """A container of the provisioner, which knows the broker's address and its own settings, and no service's."""
    container = objects.container(
        name,
        PROVISIONER,
        env=[objects.from_map("BULKHEAD_NATS_URL", "bulkhead-settings")],
        mounts=[objects.mount("identity", IDENTITY)],
        memory_mib=memory_mib,
        cpu_milli=50,
        shared_settings=False,
    )
    return container | {"args": args, "envFrom": [{"configMapRef": {"name": "bulkhead-streams"}}]}


def _redis_container(name: str, memory_mib: int) -> Object:
    return objects.container(
        name,
        "redis",
        env=[],
        mounts=[objects.mount("identity", IDENTITY)],
        memory_mib=memory_mib,
        cpu_milli=100,
        shared_settings=False,
    )


def _redis_identity() -> Object:
    return {"name": "identity", "secret": {"secretName": "bulkhead-redis", "defaultMode": 0o440}}


def _redis_servers() -> list[Object]:
    return objects.variables({"BULKHEAD_REDIS_SERVERS": ",".join(REDIS_SERVERS)})


def _redis_probes(which: str, port: int) -> Object:
    """The readiness probe asks with the password; the others cost no process."""
    alive = {"tcpSocket": {"port": port}, "timeoutSeconds": 5}
    ask = {"exec": {"command": ["python3", "-S", "-P", "-m", "bulkhead_infra.docker.probes", which]}}
    return {
        "startupProbe": alive | {"periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": ask | {"timeoutSeconds": 5, "periodSeconds": 5, "failureThreshold": 2},
    }


def _http(path: str, port: str = "monitor", **rest: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, **rest}


def _ports(**ports: int) -> list[Object]:
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _stateful(
    name: str,
    replicas: int,
    container: Object,
    identity: Object,
    ports: Mapping[str, int],
    *,
    grace_s: int,
    disk: str = "",
) -> list[Object]:
    """A server whose pods have names of their own, with all that belongs to it. disk: size of each pod's, if any.

    Its pods are made independently of each other: one that cannot come back holds up no other."""
    container = container | {"ports": _ports(**ports)}
    spec = {
        "replicas": replicas,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": objects.selector(name)},
        **({"volumeClaimTemplates": [objects.claim("data", disk)]} if disk else {}),
        "template": objects.pod(name, KIND, [container], [identity], grace_s=grace_s, critical=True),
    }
    return [
        objects.service_account(name, KIND),
        _workload("StatefulSet", name, spec),
        _headless(name, **ports),
        objects.disruption_budget(name, KIND),
    ]


def _workload(kind: str, name: str, spec: Object, notes: dict[str, str] | None = None) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": objects.metadata(name, KIND, **(notes or {})),
        "spec": spec,
    }


def _headless(name: str, **ports: int) -> Object:
    """Pods have names of it from the moment at which they run: they find each other before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": objects.metadata(name, KIND),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": objects.selector(name),
            "ports": [{"name": key, "port": port} for key, port in ports.items()],
        },
    }
