"""The folder infra/kubernetes: which file holds what, and what each overlay and component changes.

In: rows, policy, tenants and tool policies. Out: {path: text}.
"""

from pathlib import Path

from bulkhead_infra.identity import policy, render
from bulkhead_infra.identity.policy import Policy
from bulkhead_infra.kubernetes import images, infrastructure, network, objects, scaling, tls, workloads
from bulkhead_infra.kubernetes.objects import FOLDER, IDENTITY, NAMESPACE, Object
from bulkhead_infra.nats.configuration import ACCOUNTS_FILE, CONF_FILE, ServerPlan, configuration
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.services import EVERY_SERVICE

PROMOTED = ("staging", "production")
OVERLAYS = ("dev", *PROMOTED)
IMAGES_FILE = "images.yaml"
POLICY_FOLDER = Path(policy.HERE).parent / "policy"
EDGE_REPLICAS = "BULKHEAD_EDGE_REPLICAS"
NKEYS_FILE = "nkeys.conf"
LOGIN_VARIABLES = ("LOGIN_ISSUER", "LOGIN_XKEY")
PERMISSIONS_FILE = "permissions.json"
HOST = "bulkhead.example.org"
CLUSTER = {
    "BULKHEAD_TOKEN_ISSUER": "https://kubernetes.default.svc.cluster.local",
    "BULKHEAD_TOKEN_NAMESPACE": NAMESPACE,
    "BULKHEAD_KEY_SET_URL": "https://kubernetes.default.svc/openid/v1/jwks",
}
"""Issuer of the service accounts' tokens that count: `kubectl get --raw /.well-known/openid-configuration` says what a
cluster has."""
RENDERED = (f"{FOLDER}/base", f"{FOLDER}/components")
"""Folders in which nothing else lies; overlays of your own lie beside ours."""
SECRET_OWNERS = (*EVERY_SERVICE, "nats", "redis", infrastructure.PROVISIONER, "upkeep")
"""Owners of a Secret in the cluster."""
GENERATED: Object = {"labels": dict(objects.SHARED_LABELS)}
THREE = (infrastructure.BROKERS, infrastructure.STORE_GIB)
SINGLE = (1, 8 + infrastructure.STORE_ROOM_GIB)
"""Brokers, and GiB of disk of each."""
DISK_PATH = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage"


def files(root: Path) -> dict[str, str]:
    """Texts by path. root: the tree, whose digests of promoted images stay."""
    rules = policy.load(kubernetes=True)
    found = _base(rules) | _components(rules) | {f"overlays/dev/{file}": text for file, text in _dev().items()}
    for name in PROMOTED:
        found |= {
            f"overlays/{name}/{file}": text for file, text in _promoted(root / FOLDER / "overlays" / name).items()
        }
    return {f"{FOLDER}/{path}": text for path, text in found.items()}


def _base(rules: Policy) -> dict[str, str]:
    parts = {
        "namespace.yaml": [_namespace()],
        "priority.yaml": [_priority(objects.CRITICAL, 100_000), _priority(objects.STANDARD, 1_000)],
        "network.yaml": network.base(rules, EVERY_SERVICE),
        "upkeep.yaml": infrastructure.upkeep(),
        "provision-streams.yaml": infrastructure.provision_streams(
            _settings(), _streams(*THREE), _single_url(), _streams(*SINGLE)
        ),
    }
    for name, row in EVERY_SERVICE.items():
        parts[f"{objects.name_of(name)}.yaml"] = workloads.manifests(
            name, row, rules.services[name], tokens=name in rules.admitted
        )
    policies = sorted(POLICY_FOLDER.glob("*.cedar"))
    top = objects.kustomization(
        resources=sorted(parts),
        generatorOptions=GENERATED,
        configMapGenerator=[
            _literals("bulkhead-settings", _settings()),
            _literals("bulkhead-streams", _streams(*THREE)),
            _literals("bulkhead-cluster", CLUSTER),
            {"name": "bulkhead-tenants", "files": ["tenants.yaml"]},
            {"name": "bulkhead-permissions", "files": [PERMISSIONS_FILE]},
            {"name": "bulkhead-policy", "files": [f"policy/{path.name}" for path in policies]},
        ],
    )
    found = {file: objects.text(*manifests) for file, manifests in parts.items()}
    found |= {f"policy/{path.name}": path.read_text() for path in policies}
    found |= {PERMISSIONS_FILE: render.permissions(rules, workloads.SHARDS)}
    found |= {"tenants.yaml": policy.TENANTS_FILE.read_text(), "kustomization.yaml": objects.text(top)}
    return {f"base/{file}": text for file, text in found.items()}


def _settings() -> dict[str, str]:
    """Environment that all services share."""
    return {
        "BULKHEAD_NATS_URL": infrastructure.nats_url(infrastructure.brokers()),
        "BULKHEAD_NATS_CA_FILE": f"{IDENTITY}/ca.pem",
        "BULKHEAD_HEALTH_HOST": "0.0.0.0",  # noqa: S104 - probes come from the machine
        "BULKHEAD_OTLP_ENDPOINT": "",
        "BULKHEAD_LOG_LEVEL": "info",
        "BULKHEAD_LOG_JSON": "true",
    }


def _streams(replicas: int, disk_gib: int) -> dict[str, str]:
    """Environment of who makes streams."""
    return {
        "BULKHEAD_REPLICAS": str(replicas),
        "BULKHEAD_STORE_GIB": str(disk_gib - infrastructure.STORE_ROOM_GIB),
        "BULKHEAD_RANKED": "true",
        "BULKHEAD_RETENTION": "30d",
        **{f"BULKHEAD_SHARDS_{name.upper()}": str(count) for name, count in workloads.SHARDS.items()},
    }


def _single_url() -> dict[str, str]:
    return {"BULKHEAD_NATS_URL": infrastructure.nats_url(infrastructure.brokers()[:1])}


def _literals(name: str, values: dict[str, str], **more: str) -> Object:
    return {"name": name, **more, "literals": [f"{key}={value}" for key, value in values.items()]}


def _namespace() -> Object:
    labels = objects.PART | {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _priority(name: str, value: int) -> Object:
    what = "Without them nothing is admitted." if name == objects.CRITICAL else "They wait for a machine with room."
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name, "labels": dict(objects.SHARED_LABELS)},
        "value": value,
        "globalDefault": False,
        "description": f"Bulkhead. {what}",
    }


def _components(rules: Policy) -> dict[str, str]:
    parts: dict[str, tuple[list[Object], dict[str, object]]] = {
        "nats": (
            [*infrastructure.nats(), *network.between(network.bus_flows(rules))],
            {
                "generatorOptions": GENERATED,
                "configMapGenerator": [{"name": "bulkhead-broker", "files": [CONF_FILE, ACCOUNTS_FILE]}],
            },
        ),
        "redis": ([*infrastructure.redis(), *network.between(network.redis_flows(rules))], {}),
        "sentinel": (
            [*infrastructure.sentinel(), *network.between(network.sentinel_flows(rules))],
            {"patches": [{"path": "redis.yaml"}]},
        ),
        "offline-model": (
            [*infrastructure.offline_model(), *network.between(network.offline_flows(rules))],
            {"patches": [{"path": "provider.yaml"}]},
        ),
        "tls": (tls.manifests([*infrastructure.brokers(), "nats", "localhost"]), {}),
        "ingress": (ingress(), {}),
        "keda": (scaling.keda(EVERY_SERVICE), {"patches": scaling.scaled_by_another(EVERY_SERVICE)}),
        "hpa": (scaling.hpa(EVERY_SERVICE), {"patches": scaling.scaled_by_another(EVERY_SERVICE)}),
        "external-secrets": ([_external_secret(owner) for owner in SECRET_OWNERS], {}),
    }
    found = {}
    for name, (manifests, more) in parts.items():
        found[f"components/{name}/{name}.yaml"] = objects.text(*manifests)
        top = objects.component(resources=[f"{name}.yaml"], **more)
        found[f"components/{name}/kustomization.yaml"] = objects.text(top)
    found |= {
        f"components/nats/{CONF_FILE}": configuration(_broker_plan(infrastructure.brokers())),
        f"components/nats/{ACCOUNTS_FILE}": accounts_text(rules),
        "components/sentinel/redis.yaml": objects.text(infrastructure.watched_redis()),
        "components/offline-model/provider.yaml": objects.text(*_offline_provider(rules)),
    }
    return found | {f"components/single-broker/{file}": text for file, text in _single_broker().items()}


def ingress() -> list[Object]:
    """An example: replace host and class. Answers are streams: its controller must not hold them back."""
    found = []
    for name, row in EVERY_SERVICE.items():
        if row.port:
            backend = {"service": {"name": objects.name_of(name), "port": {"name": "http"}}}
            host = HOST if name == "gateway" else f"{objects.name_of(name)}.{HOST}"
            rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            spec = {"ingressClassName": "example", "tls": [{"hosts": [host], "secretName": "bulkhead-https"}]}
            found.append(
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "Ingress",
                    "metadata": objects.metadata(objects.name_of(name), row.kind),
                    "spec": spec | {"rules": [rule]},
                }
            )
    return found


def _external_secret(owner: str) -> Object:
    """One Secret taken from a store of yours, whose row `bulkhead/OWNER` holds its files by name."""
    name = f"bulkhead-{objects.name_of(owner)}"
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": objects.metadata(name, objects.INFRASTRUCTURE),
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "SecretStore", "name": "bulkhead"},
            "target": {"name": name, "creationPolicy": "Owner"},
            "dataFrom": [{"extract": {"key": f"bulkhead/{objects.name_of(owner)}"}}],
        },
    }


def _broker_plan(names: list[str]) -> ServerPlan:
    folder = Path(IDENTITY)
    return ServerPlan(
        folder=folder,
        port=network.NATS,
        monitor_port=network.MONITOR,
        host="0.0.0.0",  # noqa: S104
        monitor_host="0.0.0.0",  # noqa: S104 - probes come from the machine
        store=Path(objects.DATA) / "store",
        tls=(folder / "broker.pem", folder / "broker.key"),
        brokers=tuple(names) if len(names) > 1 else (),
        ca=folder / "ca.pem",
    )


def accounts_text(rules: Policy) -> str:
    """The accounts with a variable in the place of each public key: those stand in a file of the Secret."""
    names = {identity: f"$NKEY_{identity.upper()}" for identity in rules.with_nkey}
    logins = render.Logins(*(f"${name}" for name in LOGIN_VARIABLES))
    return f'include "./{NKEYS_FILE}"\n{render.accounts(rules, names, workloads.SHARDS, logins=logins)}'


def _offline_provider(rules: Policy) -> list[Object]:
    url = f"http://offline-model:{network.MODEL}/v1"
    env = objects.variables({"OPENAI_BASE_URL": url, "BULKHEAD_MODEL": MODEL_NAME})
    return [
        _patch("Deployment", name, {"template": {"spec": {"containers": [{"name": name, "env": env}]}}})
        for name in network.reaching(rules, policy.Place.PROVIDERS)
    ]


def _patch(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _promoted(folder: Path) -> dict[str, str]:
    """Three brokers, two Redis, cert-manager, and the images that promotion has put there."""
    path = folder / images.LIST_FILE
    known = images.references(path.read_text()) if path.is_file() else {}
    parts = ("nats", "redis", "sentinel", "tls")
    top = objects.kustomization(
        namespace=NAMESPACE,
        resources=["../../base"],
        components=[f"../../components/{part}" for part in parts],
        transformers=[IMAGES_FILE],
    )
    return {"kustomization.yaml": objects.text(top), IMAGES_FILE: images.images_text(known)}


def _dev() -> dict[str, str]:
    """One of each, on images of this machine, with the offline model."""
    rated = [name for name, row in EVERY_SERVICE.items() if EDGE_REPLICAS in workloads.environment(name, row)]
    edges = [objects.name_of(name) for name in rated]
    parts = ("nats", "single-broker", "redis", "offline-model")
    top = objects.kustomization(
        namespace=NAMESPACE,
        resources=["../../base"],
        components=[f"../../components/{part}" for part in parts],
        replicas=[{"name": objects.name_of(name), "count": 1} for name in EVERY_SERVICE],
        patches=[*({"path": f"{name}.yaml"} for name in edges), _never_pulled()],
        images=[{"name": f"{objects.IMAGES}/{image}", "newTag": "dev"} for image in images.names()],
    )
    env = objects.variables({EDGE_REPLICAS: "1"})
    return {"kustomization.yaml": objects.text(top)} | {
        f"{name}.yaml": objects.text(
            _patch("Deployment", name, {"template": {"spec": {"containers": [{"name": name, "env": env}]}}})
        )
        for name in edges
    }


def _never_pulled() -> Object:
    """A patch: images of this machine alone. A registry could have others under the same names."""
    pull = [{"op": "replace", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Never"}]
    return {"target": {"kind": "Deployment|StatefulSet|Job"}, "patch": objects.plain(pull)}


def _single_broker() -> dict[str, str]:
    """One broker on a small disk, after the component `nats`."""
    size = [{"op": "replace", "path": DISK_PATH, "value": f"{SINGLE[1]}Gi"}]
    top = objects.component(
        replicas=[{"name": "nats", "count": 1}],
        configMapGenerator=[
            _literals("bulkhead-settings", _single_url(), behavior="merge"),
            _literals("bulkhead-streams", _streams(*SINGLE), behavior="merge"),
            {"name": "bulkhead-broker", "behavior": "merge", "files": [CONF_FILE]},
        ],
        patches=[{"target": {"kind": "StatefulSet", "name": "nats"}, "patch": objects.plain(size)}],
    )
    return {
        "kustomization.yaml": objects.text(top),
        CONF_FILE: configuration(_broker_plan(infrastructure.brokers()[:1])),
    }
