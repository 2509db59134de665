"""docker-compose.yml says of every service what policy.yaml says, and keeps containers apart."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from bulkhead_contracts import catalog
from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from bulkhead_infra.render import compose

RENDERED = yaml.safe_load(compose.files()[compose.FILE])
CONTAINERS = RENDERED["services"]
OURS = {name: one for name, one in CONTAINERS.items() if name != "phoenix"}


def test_the_committed_file_is_the_rendered_one() -> None:
    assert (ROOT / compose.FILE).read_text() == compose.files()[compose.FILE]


def test_it_is_what_the_compose_specification_allows() -> None:
    """What runs the tests in containers may be 1.29, which knows no specification: v2 goes by this schema."""
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    allowed = jsonschema_rs.validator_for(schema)
    assert [(list(one.instance_path), one.message) for one in allowed.iter_errors(RENDERED)] == []
    misspelt = {**RENDERED, "services": {"nats": {**CONTAINERS["nats"], "memory_limit": "1g"}}}
    assert not allowed.is_valid(misspelt)


@pytest.mark.parametrize("name", ["provision-keys", "provision-streams", "upkeep"])
def test_who_makes_streams_or_bounds_the_broker_knows_how_much_disk_there_is_and_how_inboxes_are_divided(
    name: str,
) -> None:
    """What is lacking in one of them alone would be found months later, when a stream of a laptop's size is full."""
    variables = OURS[name]["environment"]
    assert variables["BULKHEAD_STORE_GIB"] == "${BULKHEAD_STORE_GIB:-}"
    assert {"BULKHEAD_SHARDS_WORKER", "BULKHEAD_SHARDS_BUDGET"} <= set(variables)
    assert [volume for volume in OURS[name]["volumes"] if volume.startswith("${BULKHEAD_CONFIG_DIR:-")]


@pytest.mark.parametrize("name", OURS)
def test_a_container_may_do_little(name: str) -> None:
    one = OURS[name]
    assert one["read_only"] is True and one["user"] == "10001:10001" and one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["profiles"] == ["core"]
    assert "privileged" not in one and one.get("network_mode", "none") == "none"
    assert name.startswith("provision-") or (one["mem_limit"] and one["pids_limit"] and one["cpus"])


@pytest.mark.parametrize("service", catalog.SERVICES)
def test_a_service_mounts_its_own_keys_and_nobody_elses(service: str) -> None:
    mounted = [one.partition(":")[0] for one in OURS[service]["volumes"]]
    assert [one for one in mounted if one.startswith("keys_")] == [f"keys_{service}"]
    assert f"keys_{service}:/bulkhead/identity:ro" in OURS[service]["volumes"]
    assert ("documents" in mounted) == (ReachablePlace.DOCUMENTS in policy.load_policy().services[service].reaches)


def test_only_who_makes_keys_mounts_all_of_them_and_it_has_no_network() -> None:
    with_all = [name for name, one in OURS.items() if any(v.startswith("keys_all:") for v in one.get("volumes", ()))]
    assert with_all == ["provision-keys"] and OURS["provision-keys"]["network_mode"] == "none"


@pytest.mark.parametrize("service", catalog.SERVICES)
def test_networks_are_what_the_policy_says(service: str) -> None:
    reaches = policy.load_policy().services[service].reaches
    found = set(OURS[service]["networks"])
    # Services that people call cannot call each other, but the gateway, in a network of its own for it.
    called = {"gateway": {"bus-clients", "clients"}, "doors": {"bus-doors", "doors"}}
    others = {place.value for place in reaches if place not in (ReachablePlace.DOCUMENTS, ReachablePlace.CLIENTS)}
    others |= {"gateway"} if service == "gateway" else set()
    assert found == called.get(service, {"bus"}) | others and (service in called) == (ReachablePlace.CLIENTS in reaches)
    inside = {name for name, one in RENDERED["networks"].items() if one.get("internal")}
    assert inside == {"bus", "bus-clients", "bus-doors", "gateway", "redis"}


def test_only_the_edges_of_clients_are_published_and_on_this_machine_alone() -> None:
    published = {name: one["ports"] for name, one in OURS.items() if "ports" in one}
    assert published == {
        "gateway": ["${BULKHEAD_HTTP_BIND:-127.0.0.1}:${BULKHEAD_HTTP_PORT:-8080}:8080"],
        "doors": ["${BULKHEAD_HTTP_BIND:-127.0.0.1}:${BULKHEAD_DOORS_PORT:-8090}:8090"],
    }


def test_no_secret_stands_in_an_environment() -> None:
    for name, one in CONTAINERS.items():
        for variable, value in (one.get("environment") or {}).items():
            secret = any(word in variable for word in ("KEY", "PASSWORD", "REDIS_URL", "SECRET"))
            assert not secret or (variable.endswith("_FILE") and str(value).startswith("/")), (name, variable)


def test_who_needs_something_waits_for_it() -> None:
    for service in catalog.SERVICES:
        assert OURS[service]["depends_on"]["provision-streams"] == {"condition": "service_completed_successfully"}
    assert OURS["budget"]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert OURS["provision-streams"]["depends_on"] == {"nats": {"condition": "service_healthy"}}
