"""Autoscaling fits the services, streams and manifests that it scales."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from bulkhead.telemetry import names
from bulkhead_contracts import catalog
from bulkhead_infra.kubernetes import chart
from bulkhead_infra.nats.streams import Layout, durable_configs
from bulkhead_infra.services import EVERY_SERVICE, FILE, ServiceDefinition, ServicesError, load_services
from tests.unit.infra.kubernetes.rendered import Object, installation, named

SCALED = {name: row.scaling for name, row in EVERY_SERVICE.items() if row.scaling}


def _scaled_objects() -> dict[str, Object]:
    objects = installation("production", autoscaling="keda")
    return {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "ScaledObject"}


def _triggers(kind: str) -> dict[str, list[Object]]:
    return {
        name: rows
        for name, spec in _scaled_objects().items()
        if (rows := [row for row in spec["triggers"] if row["type"] == kind])
    }


def test_lag_is_read_of_every_durable_of_each_scaled_inbox() -> None:
    layout = {(stream, config["durable_name"]) for stream, config in durable_configs(Layout(chart.SHARDS))}
    inboxes = {f"INBOX_{name.upper()}" for name in SCALED if name in catalog.INBOXES}
    rows = [row["metadata"] for triggers in _triggers("nats-jetstream").values() for row in triggers]
    read = [(row["stream"], row["consumer"]) for row in rows]
    assert len(read) == len(set(read)) and set(read) == {pair for pair in layout if pair[0] in inboxes}


def test_keda_finds_the_leader_of_a_durable_among_the_brokers() -> None:
    """It puts the first label of each route before the endpoint's host, and takes that label for the server's name."""
    brokers = named(installation("production"), "StatefulSet", "nats")
    assert "no_advertise: true" in chart.broker_configuration(3)
    for number, route in enumerate(chart.broker_names()):
        assert route == f"{brokers['metadata']['name']}-{number}.{brokers['spec']['serviceName']}"


def test_shards_are_added_up_and_are_no_fewer_than_replicas() -> None:
    for name, rows in _triggers("nats-jetstream").items():
        spec = _scaled_objects()[name]
        modifiers = spec["advanced"].get("scalingModifiers")
        assert (modifiers is None) == (len(rows) == 1)
        if modifiers:
            assert modifiers["formula"].split(" + ") == [row["name"] for row in rows]
            assert {row["metadata"]["lagThreshold"] for row in rows} == {modifiers["target"]}
            assert spec["maxReplicaCount"] <= len(rows)


def test_load_is_asked_at_the_port_where_replicas_tell_it() -> None:
    objects = installation("production", autoscaling="keda")
    for name, [row] in _triggers("metrics-api").items():
        url = urlsplit(row["metadata"]["url"])
        service = named(objects, "Service", f"{name}-load")["spec"]
        assert (url.hostname, url.path) == (f"{name}-load.bulkhead.svc", "/metrics")
        assert service["clusterIP"] == "None" and service["selector"]["app.kubernetes.io/name"] == name
        assert url.port == service["ports"][0]["port"] and row["metadata"]["valueLocation"] == names.LOAD


@pytest.mark.parametrize("by", ["keda", "hpa"])
def test_a_manifest_that_is_applied_again_sets_no_replicas_back(by: str) -> None:
    objects = installation("production", autoscaling=by)
    kinds = ("ScaledObject", "HorizontalPodAutoscaler")
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in objects if each["kind"] in kinds}
    assert scaled == set(map(chart.kube_name, SCALED))
    left = {each["metadata"]["name"] for each in objects if each["kind"] == "Deployment" and "replicas" in each["spec"]}
    assert left == {"upkeep"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"kind": "doer", "scaling": {"min": 0, "max": 3, "lag": 9}}, "deciders alone"),
        ({"kind": "edge", "scaling": {"min": 0, "max": 3}}, "Requests to an edge would be lost"),
        ({"kind": "decider", "scaling": {"min": 4, "max": 3, "lag": 9}}, "`min` 4 is above `max` 3"),
    ],
)
def test_a_row_that_would_lose_work_is_refused(row: Object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ServiceDefinition.model_validate({"drain": 3, **row})


def test_lag_belongs_to_services_with_an_inbox(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(FILE.read_text().replace("{min: 2, max: 8, lag: 200}", "{min: 2, max: 8}"))
    with pytest.raises(ServicesError, match=r"services.budget.scaling.lag: a service with an inbox has it"):
        load_services(file)
