"""A row of services.yaml and one of policy.yaml are enough for a service's manifests."""

from typing import Any

import pytest

from bulkhead.runtime.settings import ServiceSettings
from bulkhead_infra.identity.policy import IdentityPolicy, ReachablePlace, ServicePolicy, Use, load_policy
from bulkhead_infra.kubernetes import network, objects, workloads
from bulkhead_infra.services import ServiceDefinition, Setting

Object = dict[str, Any]
DOER = ServicePolicy(uses=frozenset({Use.INBOX, Use.RECORDS}))


def _made(row: ServiceDefinition, rights: ServicePolicy = DOER, *, tokens: bool = False) -> dict[str, Object]:
    return {one["kind"]: one for one in workloads.manifests("page_reader", row, rights, tokens=tokens)}


def _container(found: dict[str, Object], kind: str = "Deployment") -> Object:
    container: Object = found[kind]["spec"]["template"]["spec"]["containers"][0]
    return container


def test_a_new_service_has_its_objects_under_a_name_without_underscores() -> None:
    found = _made(ServiceDefinition(kind="doer", drain=3, memory_mib=384, cpu_milli=100))
    assert set(found) == {"ServiceAccount", "Deployment", "PodDisruptionBudget"}
    assert {one["metadata"]["name"] for one in found.values()} == {"page-reader"}
    container = _container(found)
    assert container["image"] == "bulkhead/page-reader"
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "384Mi"}


def test_a_service_with_a_store_keeps_its_disk_and_is_one_alone() -> None:
    found = _made(
        ServiceDefinition(kind="doer", drain=3),
        ServicePolicy(uses=DOER.uses, reaches=frozenset({ReachablePlace.DOCUMENTS})),
    )
    assert set(found) == {"ServiceAccount", "StatefulSet", "Service", "PodDisruptionBudget"}
    spec = found["StatefulSet"]["spec"]
    assert spec["replicas"] == 1 and spec["serviceName"] == "page-reader"
    assert [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]] == ["data"]
    mounts = {one["mountPath"]: one for one in _container(found, "StatefulSet")["volumeMounts"]}
    assert "readOnly" not in mounts[objects.DATA]


def test_a_service_that_is_called_has_a_service_and_time_to_be_forgotten() -> None:
    found = _made(ServiceDefinition(kind="edge", drain=1, environment=(Setting.HTTP,), port=8080))
    assert found["Service"]["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]
    assert _container(found)["lifecycle"] == {"preStop": {"sleep": {"seconds": objects.PRE_STOP_S}}}
    template = found["Deployment"]["spec"]["template"]["spec"]
    drain = ServiceSettings.model_fields["drain_timeout_s"].default
    assert template["terminationGracePeriodSeconds"] > drain + objects.PRE_STOP_S


@pytest.mark.parametrize("setting", Setting)
def test_each_setting_that_a_row_names_is_given(setting: Setting) -> None:
    port = 8080 if setting is Setting.HTTP else 0
    without = _container(_made(ServiceDefinition(kind="edge", drain=1)))
    container = _container(_made(ServiceDefinition(kind="edge", drain=1, environment=(setting,), port=port)))
    assert len(container.get("env", ())) > len(without.get("env", ()))
    # A file that is named has to be mounted.
    mounted = [one["mountPath"] for one in container["volumeMounts"]]
    files = [one["value"] for one in container["env"] if one["name"].endswith(("_FILE", "_DIR"))]
    assert all(any(file.startswith(place) for place in mounted) for file in files)


def test_a_token_is_named_where_it_is_mounted() -> None:
    container = _container(_made(ServiceDefinition(kind="doer", drain=3), tokens=True))
    variable = next(one for one in container["env"] if one["name"] == "BULKHEAD_NATS_TOKEN_FILE")
    assert variable["value"] == f"{objects.TOKEN_FOLDER}/token"
    assert objects.TOKEN_FOLDER in [one["mountPath"] for one in container["volumeMounts"]]


def test_a_new_service_reaches_the_broker_and_its_places() -> None:
    rules = load_policy()
    rights = ServicePolicy(uses=DOER.uses, reaches=frozenset({ReachablePlace.REDIS}))
    more = IdentityPolicy.model_construct(services={**rules.services, "page_reader": rights}, operator=rules.operator)
    assert "page-reader" in network.bus_flows(more)[0].clients
    assert (
        "page-reader" in network.redis_flows(more)[0].clients
        and "page-reader" in network.sentinel_flows(more)[1].clients
    )
