"""The components keda and hpa fit the services, streams and manifests that they scale."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import ValidationError

from bulkhead.telemetry import names
from bulkhead_contracts import catalog
from bulkhead_infra.kubernetes import infrastructure, network, objects, overlays, rules, scaling, workloads
from bulkhead_infra.nats.configuration import render_configuration
from bulkhead_infra.nats.streams import Layout, durable_configs
from bulkhead_infra.services import EVERY_SERVICE, ServiceDefinition, ServicesError, load_services
from tests.unit.infra.kubernetes.reachability import Peer, is_open, pod, pods
from tests.unit.infra.kubernetes.rendered import Object, components, copied, kustomize, named, parsed

SCALED = {name: row.scaling for name, row in EVERY_SERVICE.items() if row.scaling}
KEDA = Peer(labels=(), namespace=(("kubernetes.io/metadata.name", scaling.KEDA_NAMESPACE),))
OTHER = Peer(labels=(), namespace=(("kubernetes.io/metadata.name", "other"),))


def _scaled_objects() -> dict[str, Object]:
    return {one["metadata"]["name"]: one["spec"] for one in components("keda") if one["kind"] == "ScaledObject"}


def _triggers(kind: str) -> dict[str, list[dict[str, str]]]:
    found = {
        name: [row["metadata"] for row in spec["triggers"] if row["type"] == kind]
        for name, spec in _scaled_objects().items()
    }
    return {name: rows for name, rows in found.items() if rows}


def _with(component: str, folder: Path) -> list[Object]:
    """Production with one more component."""
    place = copied(folder) / "overlays" / "production"
    top = yaml.safe_load((place / "kustomization.yaml").read_text())
    more = [*top["components"], f"../../components/{component}"]  # What simulation read in this process is one object.
    (place / "kustomization.yaml").write_text(yaml.safe_dump({**top, "components": more}))
    return parsed(kustomize(place))


def test_lag_is_read_of_every_durable_of_each_scaled_inbox() -> None:
    made = {(stream, config["durable_name"]) for stream, config in durable_configs(Layout(workloads.SHARDS))}
    inboxes = {f"INBOX_{name.upper()}" for name in SCALED if name in catalog.INBOXES}
    read = [(row["stream"], row["consumer"]) for rows in _triggers("nats-jetstream").values() for row in rows]
    assert len(read) == len(set(read)) and set(read) == {row for row in made if row[0] in inboxes}


def test_keda_finds_the_leader_of_a_durable_among_the_brokers() -> None:
    """It puts the first label of each route before the endpoint's host, and takes that label for the server's name."""
    brokers = named(components("nats"), "StatefulSet", "nats")
    assert "no_advertise: true" in render_configuration(overlays._broker_plan(infrastructure.brokers()))
    for number, route in enumerate(infrastructure.brokers()):
        pod_name, service = route.split(".")
        assert pod_name == f"{brokers['metadata']['name']}-{number}", "and so is the server's name: BULKHEAD_BROKER"
        assert service == brokers["spec"]["serviceName"] == scaling.MONITOR.partition(".")[0]


def test_shards_are_added_up() -> None:
    for name, rows in _triggers("nats-jetstream").items():
        spec = _scaled_objects()[name]
        modifiers = spec["advanced"].get("scalingModifiers")
        if len(rows) == 1:
            assert modifiers is None
            continue
        told = [row["name"] for row in spec["triggers"] if row["type"] == "nats-jetstream"]
        assert modifiers["formula"].split_round(" + ") == told
        assert {row["lagThreshold"] for row in rows} == {modifiers["target"]}


def test_no_decider_may_have_more_replicas_than_shards() -> None:
    over = {name for name in catalog.DECIDERS if SCALED[name].max > workloads.SHARDS[name]}
    assert not over


def test_load_is_asked_at_the_port_where_replicas_tell_it() -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in components("keda") if one["kind"] == "Service"}
    for name, (row,) in _triggers("metrics-api").items():
        url = urlsplit(row["url"])
        host, namespace, _ = (url.hostname or "").split(".")
        assert (host, namespace, url.path) == (f"{name}-load", objects.NAMESPACE, "/metrics")
        spec = services[host]
        assert spec["clusterIP"] == "None" and spec["selector"] == objects.selector(name)
        assert url.port == spec["ports"][0]["port"] == objects.HEALTH_PORT
        assert row["valueLocation"] == names.LOAD


def test_what_cannot_be_read_takes_no_replica_away() -> None:
    for name, spec in _scaled_objects().items():
        if any(row["type"] != "cpu" for row in spec["triggers"]):
            fallback = spec["fallback"]
            assert fallback["behavior"] == "currentReplicasIfHigher", name
            assert fallback["replicas"] == max(1, spec["minReplicaCount"])


@pytest.mark.parametrize("component", ["keda", "hpa"])
def test_production_scales_and_breaks_no_rule(component: str, tmp_path: Path) -> None:
    found = _with(component, tmp_path)
    assert {one.rule for one in rules.broken(found)} <= {"by-digest"}
    kind = "ScaledObject" if component == "keda" else "HorizontalPodAutoscaler"
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in found if one["kind"] == kind}
    assert scaled == {objects.name_of(name) for name in SCALED}
    left = {one["metadata"]["name"] for one in found if one["kind"] == "Deployment" and "replicas" in one["spec"]}
    assert left == {"upkeep"}, "a manifest that is applied again sets the replicas of these back"
    assert named(found, "StatefulSet", "rag")["spec"]["replicas"] == 1


def test_keda_alone_may_ask_brokers_and_replicas(tmp_path: Path) -> None:
    found = _with("keda", tmp_path)
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    asked = {("nats", network.MONITOR)}
    asked |= {(objects.name_of(name), objects.HEALTH_PORT) for name, row in SCALED.items() if row.load}
    ports = (network.NATS, network.MONITOR, objects.HEALTH_PORT, network.REDIS, 8080)

    def open_to(caller: Peer) -> set[tuple[str, int]]:
        servers = [(name, pod(labels), port) for name, labels in pods(found).items() for port in ports]
        return {(name, port) for name, server, port in servers if is_open(policies, caller, server, port)}

    assert open_to(KEDA) == asked
    assert open_to(OTHER) == set()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kind": "doer", "scaling": {"min": 0, "max": 3, "lag": 9}}, "deciders alone"),
        ({"kind": "edge", "scaling": {"min": 0, "max": 3}}, "Requests to an edge would be lost"),
        ({"kind": "decider", "scaling": {"min": 4, "max": 3, "lag": 9}}, "`min` 4 is above `max` 3"),
    ],
)
def test_a_row_that_would_lose_work_is_refused(row: Object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServiceDefinition.model_validate({"drain": 3, **row})


def test_a_decider_may_go_to_zero() -> None:
    assert ServiceDefinition.model_validate({"kind": "decider", "drain": 2, "scaling": {"min": 0, "max": 3, "lag": 9}})


def test_lag_belongs_to_services_with_an_inbox(tmp_path: Path) -> None:
    text = (Path(scaling.__file__).parents[1] / "services.yaml").read_text()
    file = tmp_path / "services.yaml"
    file.write_text(text.replace("{min: 2, max: 8, lag: 200}", "{min: 2, max: 8}"))
    with pytest.raises(ServicesError, match=r"services.budget.scaling.lag: a service with an inbox has it"):
        load_services(file)
