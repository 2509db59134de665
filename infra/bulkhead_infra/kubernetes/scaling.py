"""Autoscaling: a KEDA ScaledObject for each service that scales, or a plain HorizontalPodAutoscaler on CPU. Pure.

In: rows of services.yaml. Out: objects of the components `keda` and `hpa`.

KEDA asks the brokers for the lag of each durable: messages that wait or are in hand. Several triggers of one
ScaledObject count by the largest, so a formula adds up the shards. Lag does not show calls that wait for a place at a
provider (they are put off and acknowledged), nor which kind of tools is short of places: `bulkhead_load` of all
replicas, from /metrics, is added up beside it. A message of a decider takes a millisecond, so that its lag is nothing
until the replicas are too few, and nothing again as soon as they are enough: CPU keeps those that a load needs.
"""

from collections.abc import Mapping

from bulkhead.telemetry import names
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.identity.rights import MESH
from bulkhead_infra.kubernetes import network, objects
from bulkhead_infra.kubernetes.objects import Object
from bulkhead_infra.kubernetes.workloads import SHARDS
from bulkhead_infra.services import ServiceDefinition

KEDA_NAMESPACE = "keda"
MONITOR = f"nats.{objects.NAMESPACE}.svc:{network.MONITOR}"
LOAD_PERCENT = 75
"""Share of its places that a replica is meant to use: one more call finds room while another replica starts."""
CPU = "600m"
"""Share of the one core that a process uses: capacity.ROOM."""
POLL_S, IDLE_S = 15, 300
"""Interval at which KEDA looks for any work, and time without work after which a service goes to zero."""
GROWTH: Object = {"type": "Percent", "value": 100, "periodSeconds": 30}
"""Replicas of the step before serve by then: with a shorter period a backlog asks for many more than it needs."""
SHRINKAGE: Object = {"type": "Percent", "value": 50, "periodSeconds": 60}
FAILURES = 3
"""Readings of a metric that may fail before the fallback counts: the replicas that run, and no fewer than `min`."""


def keda(rows: Mapping[str, ServiceDefinition]) -> list[Object]:
    """ScaledObjects, the Services by which KEDA finds replicas to ask, and its leave to ask them and the brokers."""
    loaded = [objects.name_of(name) for name, row in rows.items() if row.scaling and row.scaling.load]
    return [
        *(_scaled_object(name, row) for name, row in rows.items() if row.scaling),
        *(_load_service(name, rows[name.replace("-", "_")].kind) for name in loaded),
        network.opened("keda-lag", ("nats",), KEDA_NAMESPACE, network.MONITOR),
        network.opened("keda-load", loaded, KEDA_NAMESPACE, objects.HEALTH_PORT),
    ]


def hpa(rows: Mapping[str, ServiceDefinition]) -> list[Object]:
    """One per service that scales, on CPU alone: nothing but the cluster's metrics-server is needed."""
    return [_hpa(name, row) for name, row in rows.items() if row.scaling]


def scaled_by_another(rows: Mapping[str, ServiceDefinition]) -> list[Object]:
    """Patches: a manifest that is applied again must not set replicas back."""
    kubes = [objects.name_of(name) for name, row in rows.items() if row.scaling]
    gone = objects.plain([{"op": "remove", "path": "/spec/replicas"}])
    return [{"target": {"kind": "Deployment", "name": name}, "patch": gone} for name in kubes]


def behavior(calm_s: int) -> Object:
    """Up: twice as many every 30 s. Down: by half every minute, when fewer have been enough for `calm_s`."""
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [GROWTH]},
        "scaleDown": {"stabilizationWindowSeconds": calm_s, "selectPolicy": "Max", "policies": [SHRINKAGE]},
    }


def _scaled_object(name: str, row: ServiceDefinition) -> Object:
    assert row.scaling is not None
    kube, scaling = objects.name_of(name), row.scaling
    advanced: Object = {"horizontalPodAutoscalerConfig": {"behavior": behavior(scaling.calm_s)}}
    triggers = []
    if scaling.lag:
        triggers += [_lag(name, shard, scaling.lag) for shard in range(SHARDS.get(name, 1))]
    if len(triggers) > 1:
        assert not scaling.load, f"{name}: a formula is all that counts beside CPU; load has no place in it"
        formula = " + ".join(trigger["name"] for trigger in triggers)
        advanced["scalingModifiers"] = {"formula": formula, "target": str(scaling.lag), "metricType": "AverageValue"}
    if scaling.load:
        triggers.append(_load(kube))
    spec: Object = {
        "scaleTargetRef": {"name": kube},
        "minReplicaCount": scaling.min,
        "maxReplicaCount": scaling.max,
        "pollingInterval": POLL_S,
        "cooldownPeriod": IDLE_S,
        "advanced": advanced,
    }
    if triggers:  # CPU has none: the autoscaler of Kubernetes keeps what runs when it knows nothing.
        fallback = {"failureThreshold": FAILURES, "replicas": max(1, scaling.min)}
        spec["fallback"] = fallback | {"behavior": "currentReplicasIfHigher"}
    spec["triggers"] = [*triggers, {"type": "cpu", "metricType": "AverageValue", "metadata": {"value": CPU}}]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": objects.metadata(kube, row.kind),
        "spec": spec,
    }


def _lag(name: str, shard: int, threshold: int) -> Object:
    assert name in catalog.INBOXES, name
    return {
        "type": "nats-jetstream",
        "name": f"shard_{shard}",
        "metricType": "AverageValue",
        "metadata": {
            "natsServerMonitoringEndpoint": MONITOR,
            "account": MESH,
            "stream": subjects.inbox_stream(name),
            "consumer": subjects.durable_name(name, shard),
            "lagThreshold": str(threshold),
            "activationLagThreshold": "0",
        },
    }


def _load(kube: str) -> Object:
    return {
        "type": "metrics-api",
        "name": "load",
        "metricType": "AverageValue",
        "metadata": {
            "url": f"http://{kube}-load.{objects.NAMESPACE}.svc:{objects.HEALTH_PORT}/metrics",
            "format": "prometheus",
            "valueLocation": names.LOAD,
            "targetValue": str(LOAD_PERCENT / 100),
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
        },
    }


def _load_service(kube: str, kind: str) -> Object:
    ports = [{"name": "health", "port": objects.HEALTH_PORT, "targetPort": "health"}]
    spec = {"clusterIP": "None", "selector": objects.selector(kube), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": objects.metadata(f"{kube}-load", kind), "spec": spec}


def _hpa(name: str, row: ServiceDefinition) -> Object:
    assert row.scaling is not None
    kube = objects.name_of(name)
    cpu = {"name": "cpu", "target": {"type": "AverageValue", "averageValue": CPU}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": objects.metadata(kube, row.kind),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": kube},
            "minReplicas": max(1, row.scaling.min),
            "maxReplicas": row.scaling.max,
            "metrics": [{"type": "Resource", "resource": cpu}],
            "behavior": behavior(row.scaling.calm_s),
        },
    }
