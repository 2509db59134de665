"""Every flow of policy.yaml and no other is open: computed from the NetworkPolicies."""

import ipaddress
from collections.abc import Iterable

import pytest
import yaml

from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from bulkhead_infra.kubernetes import network
from tests.unit.infra.kubernetes.reachability import Peer, is_open, pod, pods
from tests.unit.infra.kubernetes.rendered import Object, components, overlay

ODD_PORTS = (22, 9999)
API_PORTS = (443, 6443)
PORTS = (*API_PORTS, 4222, 6222, 8000, 8080, 8081, 8090, 8222, 6379, 26379, *ODD_PORTS)
DNS = Peer(labels=(("k8s-app", "kube-dns"),), namespace=(("kubernetes.io/metadata.name", "kube-system"),))
CONTROLLER = Peer(labels=(("app", "ingress"),), namespace=(("bulkhead.dev/clients", "true"),))
STRANGER = Peer(labels=(("app.kubernetes.io/name", "gateway"),), namespace=(("kubernetes.io/metadata.name", "other"),))
PUBLIC, METADATA, API_SERVER = "93.184.216.34", "169.254.169.254", "10.96.0.1"
RULES = policy.load_policy(kubernetes=True)
Flows = set[tuple[str, str, int]]


def _who(place: ReachablePlace) -> set[str]:
    return {name.replace("_", "-") for name, row in RULES.services.items() if place in row.reaches}


def _wanted(name: str) -> Flows:
    """As catalog and policy have it: all speak with the broker; the rest is `reaches`."""
    single = name == "dev"
    services = {service.replace("_", "-") for service in RULES.services}
    found = {(one, "nats", 4222) for one in (*services, "upkeep", "provision-streams")} | {("nats", "nats", 6222)}
    found |= {(one, "redis", 6379) for one in _who(ReachablePlace.REDIS)}
    found |= {(one, "gateway", 8080) for one in _who(ReachablePlace.GATEWAY)}
    if single:
        return found | {(one, "offline-model", 8000) for one in _who(ReachablePlace.PROVIDERS)}
    watching = {"redis", "sentinel"}
    found |= {(one, "redis", 6379) for one in watching}
    return found | {(one, "sentinel", 26379) for one in watching | _who(ReachablePlace.REDIS)}


def _open(objects: list[Object], ports: Iterable[int] = PORTS) -> Flows:
    known = pods(objects)
    return {
        (client, server, port)
        for client, labels in known.items()
        for server, others in known.items()
        for port in ports
        if is_open(objects, pod(labels), pod(others), port)
    }


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
@pytest.mark.slow
def test_every_flow_that_the_policy_names_and_no_other_is_open(name: str) -> None:
    assert _open(overlay(name)) == _wanted(name)


@pytest.mark.parametrize("name", ["dev", "production"])
def test_places_outside_are_open_to_those_who_reach_them_alone(name: str) -> None:
    objects = overlay(name)
    for workload, labels in pods(objects).items():
        own = pod(labels)
        for port in (80, 443, 25):
            wanted = (workload in _who(ReachablePlace.PROVIDERS) and port == 443) or (
                workload in _who(ReachablePlace.TOOLS) and port in (80, 443)
            )
            assert is_open(objects, own, Peer(address=PUBLIC), port) is wanted, (workload, port)
            assert not is_open(objects, own, Peer(address=METADATA), port), workload
        assert is_open(objects, own, DNS, 53, "UDP") and is_open(objects, own, DNS, 53), workload


@pytest.mark.parametrize("name", ["dev", "production"])
def test_the_api_server_is_reached_by_those_who_read_its_keys_alone(name: str) -> None:
    objects = overlay(name)
    for workload, labels in pods(objects).items():
        for address, port in ((API_SERVER, 443), ("10.0.0.4", 6443), ("192.168.0.4", 6443)):
            wanted = workload in _who(ReachablePlace.KEY_SET)
            assert is_open(objects, pod(labels), Peer(address=address), port) is wanted, (workload, address)
        assert not is_open(objects, pod(labels), Peer(address=API_SERVER), 10250), workload


@pytest.mark.parametrize("name", ["dev", "production"])
def test_the_block_of_the_api_server_opens_its_ports_to_pods_elsewhere_and_to_none_of_ours(name: str) -> None:
    """Some plugins let those through whom a block covers by their address: servers of ours are closed to them."""
    objects = overlay(name)
    known = pods(objects)
    opened = {
        (client, port)
        for client, labels in known.items()
        for port in PORTS
        if any(is_open(objects, pod(labels), peer, port) for peer in (STRANGER, DNS))
    }
    assert opened == {(client, port) for client in _who(ReachablePlace.KEY_SET) for port in API_PORTS}
    assert not {flow for flow in _open(objects, API_PORTS) if flow[2] in API_PORTS}
    blind = [one for one in objects if one["metadata"]["name"] != "reaches-key-set"]
    assert not any(is_open(blind, pod(labels), STRANGER, port) for labels in known.values() for port in API_PORTS)


@pytest.mark.parametrize("name", ["dev", "production"])
def test_the_edges_alone_are_called_from_outside_and_only_from_namespaces_of_clients(name: str) -> None:
    objects = overlay(name)
    for workload, labels in pods(objects).items():
        called = {port for port in PORTS if is_open(objects, CONTROLLER, pod(labels), port)}
        assert called == {"gateway": {8080}, "doors": {8090}}.get(workload, set()), workload
        assert not any(is_open(objects, STRANGER, pod(labels), port) for port in PORTS), workload


def test_addresses_of_pods_and_services_are_no_place_outside() -> None:
    for address in (API_SERVER, "10.244.1.7", "172.20.0.1", "192.168.3.4", "100.64.9.9"):
        assert any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in network.PRIVATE)


def test_who_has_a_key_or_token_of_the_broker_reaches_it_and_nobody_else_does() -> None:
    objects = overlay("production")
    owners = {"nats"}  # It needs none of its own.
    for one in objects:
        spec = one.get("spec", {}).get("template", {}).get("spec", {})
        names = {source.get("secret", {}).get("name", "") for v in spec.get("volumes", ()) for source in _sources(v)}
        if any(name.removeprefix("bulkhead-").replace("-", "_") in RULES.identities for name in names) or (
            "bulkhead-upkeep" in names
        ):
            owners.add(one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"])
    reaching = {client for client, server, port in _open(objects, [4222, 6222]) if server == "nats"}
    assert reaching == owners


def _sources(volume: Object) -> list[Object]:
    sources: list[Object] = volume.get("projected", {}).get("sources", [])
    return sources


@pytest.mark.parametrize("missing", ["bus-servers", "bus-clients", "redis-clients"])
def test_a_policy_that_is_missing_is_noticed(missing: str) -> None:
    objects = [one for one in overlay("dev") if one["metadata"]["name"] != missing]
    assert len(objects) == len(overlay("dev")) - 1
    assert _open(objects) != _wanted("dev")


def test_without_default_deny_strangers_get_in() -> None:
    objects = [one for one in overlay("dev") if one["metadata"]["name"] != "default-deny"]
    assert any(is_open(objects, STRANGER, pod(labels), 8081) for labels in pods(objects).values())


def test_one_flow_too_many_is_noticed() -> None:
    objects = overlay("dev")
    more = yaml.safe_load("""
        kind: NetworkPolicy
        metadata: {name: more}
        spec:
          podSelector: {}
          policyTypes: [Ingress, Egress]
          ingress: [{from: [{podSelector: {}}], ports: [{port: 22}]}]
          egress: [{to: [{podSelector: {}}], ports: [{port: 22}]}]
    """)
    assert {port for _, _, port in _open([*objects, more]) - _wanted("dev")} == {22}


def test_a_component_alone_opens_nothing_beyond_its_own_server() -> None:
    servers = {"nats": {4222, 6222}, "redis": {6379}, "sentinel": {6379, 26379}, "offline-model": {8000}}
    for name, ports in servers.items():
        rows = [one["spec"] for one in components(name) if one["kind"] == "NetworkPolicy"]
        opened = {
            port["port"]
            for row in rows
            for rule in (*row.get("ingress", ()), *row.get("egress", ()))
            for port in rule["ports"]
        }
        assert opened == ports
