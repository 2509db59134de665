"""Services become workloads: a Deployment each, or a StatefulSet where one keeps a disk, and all that belongs to it.

In: rows of services.yaml and the policy. Out: objects, by file name.
"""

from collections.abc import Mapping
from typing import assert_never

from bulkhead_contracts import catalog
from bulkhead_infra.composition import newest_logic, settings_of
from bulkhead_infra.identity.policy import ReachablePlace, ServicePolicy
from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.objects import DATA, IDENTITY, Object
from bulkhead_infra.services import EVERY_SERVICE, GATEWAY_URL, ServiceDefinition, Setting

TENANTS, POLICY = "/bulkhead/tenants", "/bulkhead/policy"
DOCUMENTS_SIZE = "10Gi"
SHARDS: Mapping[str, int] = dict.fromkeys(catalog.DECIDERS, 8)
"""Shards of inboxes that have several, as many as there are ranks (ADR 0017). Their number stays as it is for the life
of a mesh; up to that many replicas keep what they know of a task in memory."""
REPLICAS = 2
"""Replicas of each service that may have several: one may go with its machine."""
CLUSTER, PERMISSIONS = "/var/run/secrets/bulkhead/cluster", "/bulkhead/permissions"
"""Folders of a service that reaches the cluster's key set: its token and the certificate; the permissions of all."""
DISCOVERY = "system:service-account-issuer-discovery"
STARTUP_S = 300
"""Time for a first connection: the broker, its streams and a ledger may be made at the same moment."""
NOTES: Mapping[str, str] = {
    "budget": "Every replica admits. One rebuilds the ledger and one reports findings, by leases in Redis; the other "
    "stands by and takes over within seconds.",
    "identity": "Replicas are alike; the broker asks any of them. Away, they keep new logins out and end none.",
    "signer": "Replicas are alike and keep nothing; the broker asks any of them.",
}
ONE = (
    "One alone: its documents lie on a disk of its own, and a second replica would have others. A new pod takes over "
    "the disk."
)
OF_SOME: Mapping[str, str] = {"BULKHEAD_EDGE_REPLICAS": "edge_replicas", "BULKHEAD_PUBLISHERS_FILE": "publishers_file"}
"""Variables that not every service with `http` or `callers` knows, and their fields."""
RECREATED = frozenset({"budget"})
"""Two versions of it beside each other would both write the ledger in Redis: see docs/how-to/upgrade.md."""


def manifests(name: str, row: ServiceDefinition, rights: ServicePolicy, *, tokens: bool) -> list[Object]:
    """All objects of one service. tokens: its login to the broker is the token of its service account."""
    kube = objects.name_of(name)
    found = [objects.service_account(kube, row.kind), _workload(name, row, rights, tokens=tokens)]
    if row.port or ReachablePlace.DOCUMENTS in rights.reaches:
        found.append(_service(kube, row))
    if ReachablePlace.KEY_SET in rights.reaches:
        found.append(_reads_key_set(kube, row))
    return [*found, objects.disruption_budget(kube, row.kind)]


def _workload(name: str, row: ServiceDefinition, rights: ServicePolicy, *, tokens: bool) -> Object:
    kube, keeps = objects.name_of(name), ReachablePlace.DOCUMENTS in rights.reaches
    note = ONE if keeps else NOTES.get(name, "")
    annotations = {objects.REPLICAS_NOTE: note} if note else {}
    spec: Object = {
        "replicas": 1 if keeps else REPLICAS,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": objects.selector(kube)},
    }
    if keeps:
        spec |= {"serviceName": kube, "volumeClaimTemplates": [objects.claim("data", DOCUMENTS_SIZE)]}
    elif name in RECREATED:
        spec["strategy"] = {"type": "Recreate"}
    else:
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec["template"] = objects.pod(
        kube,
        row.kind,
        [_container(name, row, rights, tokens=tokens)],
        _volumes(kube, row, rights, tokens=tokens),
        grace_s=objects.grace_s(behind_service=bool(row.port)),
        # Without an edge no task is let in, admitted or paid for; deciders and doers have others of their kind.
        critical=row.kind == "edge",
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet" if keeps else "Deployment",
        "metadata": objects.metadata(kube, row.kind, **annotations),
        "spec": spec,
    }


def _container(name: str, row: ServiceDefinition, rights: ServicePolicy, *, tokens: bool) -> Object:
    kube, env = objects.name_of(name), environment(name, row)
    mounts = [objects.mount("identity", IDENTITY)]
    if tokens:
        mounts.append(objects.mount("bus-token", objects.TOKEN_FOLDER))
        env = {"BULKHEAD_NATS_TOKEN_FILE": f"{objects.TOKEN_FOLDER}/token"} | env
    if ReachablePlace.DOCUMENTS in rights.reaches:
        mounts.append(objects.mount("data", DATA, read_only=False))
    if ReachablePlace.KEY_SET in rights.reaches:
        mounts += [objects.mount("cluster", CLUSTER), objects.mount("permissions", PERMISSIONS)]
        env |= {
            "BULKHEAD_KEY_SET_CA_FILE": f"{CLUSTER}/ca.crt",
            "BULKHEAD_KEY_SET_BEARER_FILE": f"{CLUSTER}/token",
            "BULKHEAD_PERMISSIONS_FILE": f"{PERMISSIONS}/permissions.json",
        }
    for setting, volume, path in ((Setting.TENANTS, "tenants", TENANTS), (Setting.POLICY, "policy", POLICY)):
        if setting in row.environment:
            mounts.append(objects.mount(volume, path))
    found = objects.container(
        kube, kube, env=objects.variables(env), mounts=mounts, memory_mib=row.memory_mib, cpu_milli=row.cpu_milli
    )
    if ReachablePlace.KEY_SET in rights.reaches:
        found["envFrom"].append({"configMapRef": {"name": "bulkhead-cluster"}})
    ports = [{"name": "health", "containerPort": objects.HEALTH_PORT}]
    if row.port:
        ports.insert(0, {"name": "http", "containerPort": row.port})
        # Endpoints forget the pod while it still answers.
        found["lifecycle"] = {"preStop": {"sleep": {"seconds": objects.PRE_STOP_S}}}
    return found | {"ports": ports} | probes()


def probes() -> Object:
    """As health_endpoints.py answers them. The startup probe has time for a whole mesh that starts at once."""

    def get(path: str, **rest: int) -> Object:
        return {"httpGet": {"path": path, "port": "health"}, "timeoutSeconds": 5, **rest}

    return {
        "startupProbe": get("/startupz", periodSeconds=2, failureThreshold=STARTUP_S // 2),
        "livenessProbe": get("/livez", periodSeconds=10, failureThreshold=3),
        "readinessProbe": get("/readyz", periodSeconds=5, failureThreshold=2),
    }


def _volumes(kube: str, row: ServiceDefinition, rights: ServicePolicy, *, tokens: bool) -> list[Object]:
    found, maps = [objects.identity_volume(kube)], []
    if tokens:
        found.append(objects.token_volume())
    if ReachablePlace.KEY_SET in rights.reaches:
        # For the API server: without an audience that is what a token is for.
        token = {"serviceAccountToken": {"expirationSeconds": objects.TOKEN_S, "path": "token"}}
        sources = [token, {"configMap": {"name": objects.CLUSTER_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]
        found.append({"name": "cluster", "projected": {"defaultMode": 0o440, "sources": sources}})
        maps.append("permissions")
    maps += [
        name
        for setting, name in ((Setting.TENANTS, "tenants"), (Setting.POLICY, "policy"))
        if setting in row.environment
    ]
    return [*found, *({"name": one, "configMap": {"name": f"bulkhead-{one}", "defaultMode": 0o444}} for one in maps)]


def _reads_key_set(kube: str, row: ServiceDefinition) -> Object:
    """Leave to read the key set, by a role that every cluster has."""
    subject = {"kind": "ServiceAccount", "name": kube, "namespace": objects.NAMESPACE}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"bulkhead-{kube}", "labels": objects.labels(kube, row.kind)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DISCOVERY},
        "subjects": [subject],
    }


def environment(name: str, row: ServiceDefinition) -> dict[str, str]:
    """Variables of one service beside those that all share."""
    found: dict[str, str] = {}
    for setting in row.environment:
        found |= _given(setting, row)
    found = {variable: value for variable, value in found.items() if not _foreign(name, variable)}
    if name in catalog.INBOXES:
        found["BULKHEAD_SHARDS"] = str(SHARDS.get(name, 1))
    found |= {f"BULKHEAD_{knob.upper()}": value for knob, value in row.knobs.items()}
    return found


def _foreign(name: str, variable: str) -> bool:
    """Whether a service that has the setting of the mesh does not know this variable of it."""
    field = OF_SOME.get(variable)
    return field is not None and name in EVERY_SERVICE and field not in settings_of(name).model_fields


def _given(setting: Setting, row: ServiceDefinition) -> dict[str, str]:
    match setting:
        case Setting.HTTP:
            rates = {"BULKHEAD_EDGE_REPLICAS": str(REPLICAS)}
            return {"BULKHEAD_HTTP_HOST": "0.0.0.0", "BULKHEAD_HTTP_PORT": str(row.port)} | rates  # noqa: S104
        case Setting.TENANTS:
            return {"BULKHEAD_TENANTS_FILE": f"{TENANTS}/tenants.yaml"}
        case Setting.POLICY:
            return {"BULKHEAD_POLICY_DIR": POLICY}
        case Setting.CALLERS:
            return {
                "BULKHEAD_API_KEYS_FILE": f"{IDENTITY}/api_keys.json",
                "BULKHEAD_PUBLISHERS_FILE": f"{IDENTITY}/publishers.json",
            }
        case Setting.REDIS:
            return {"BULKHEAD_REDIS_URL_FILE": f"{IDENTITY}/redis_url"}
        case Setting.PROVIDER:
            return {"OPENAI_API_KEY_FILE": f"{IDENTITY}/openai_api_key"}
        case Setting.GATEWAY:
            return {"BULKHEAD_GATEWAY_URL": GATEWAY_URL}
        case Setting.LOGIC:
            return {"BULKHEAD_LOGIC": str(newest_logic())}
        case _:
            assert_never(setting)


def _service(kube: str, row: ServiceDefinition) -> Object:
    spec: Object = {"selector": objects.selector(kube)}
    if row.port:
        spec["ports"] = [{"name": "http", "port": row.port, "targetPort": "http"}]
    else:
        # A StatefulSet's pods have their names of it; nobody calls it.
        spec |= {"clusterIP": "None", "ports": [{"name": "health", "port": objects.HEALTH_PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": objects.metadata(kube, row.kind), "spec": spec}
