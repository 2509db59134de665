"""Every flow of policy.yaml and no other is open: computed from the NetworkPolicies."""

from collections.abc import Iterable

import pytest

from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from bulkhead_infra.kubernetes.chart import kube_name
from tests.unit.infra.kubernetes.reachability import Peer, is_open, pod, pods
from tests.unit.infra.kubernetes.rendered import Object, example, installation, render_chart

API_PORTS = (443, 6443)
PORTS = (*API_PORTS, 4222, 6222, 8000, 8080, 8081, 8090, 8222, 6379, 26379, 22, 9999)
DNS = Peer(labels=(("k8s-app", "kube-dns"),), namespace=(("kubernetes.io/metadata.name", "kube-system"),))
CONTROLLER = Peer(labels=(("app", "ingress"),), namespace=(("bulkhead.dev/clients", "true"),))
STRANGER = Peer(labels=(("app.kubernetes.io/name", "gateway"),), namespace=(("kubernetes.io/metadata.name", "other"),))
KEDA = Peer(namespace=(("kubernetes.io/metadata.name", "keda"),))
PUBLIC, METADATA, API_SERVER = "93.184.216.34", "169.254.169.254", "10.96.0.1"
RULES = policy.load_policy(kubernetes=True)
ON_BUS = {*map(kube_name, RULES.services), "upkeep", "provision-streams"}
Flows = set[tuple[str, str, int]]


def _reaching(place: ReachablePlace) -> set[str]:
    return {kube_name(name) for name, row in RULES.services.items() if place in row.reaches}


def _wanted(name: str) -> Flows:
    """As catalog and policy have it: all speak with the broker; the rest is `reaches`."""
    flows = {(client, "nats", 4222) for client in ON_BUS} | {("nats", "nats", 6222)}
    flows |= {(client, "redis", 6379) for client in _reaching(ReachablePlace.REDIS)}
    flows |= {(client, "gateway", 8080) for client in _reaching(ReachablePlace.GATEWAY)}
    if name == "dev":
        return flows | {(client, "offline-model", 8000) for client in _reaching(ReachablePlace.PROVIDERS)}
    watching = {"redis", "sentinel"}
    flows |= {(client, "redis", 6379) for client in watching}
    return flows | {(client, "sentinel", 26379) for client in watching | _reaching(ReachablePlace.REDIS)}


def _open(objects: list[Object], ports: Iterable[int] = PORTS) -> Flows:
    labels = {name: pod(row) for name, row in pods(objects).items()}
    return {
        (client, server, port)
        for client, own in labels.items()
        for server, other in labels.items()
        for port in ports
        if is_open(objects, own, other, port)
    }


def _called(objects: list[Object], caller: Peer) -> set[tuple[str, int]]:
    return {
        (name, port)
        for name, row in pods(objects).items()
        for port in PORTS
        if is_open(objects, caller, pod(row), port)
    }


@pytest.mark.parametrize("name", ["dev", "production"])
@pytest.mark.slow
def test_every_flow_that_the_policy_names_and_no_other_is_open(name: str) -> None:
    assert _open(installation(name)) == _wanted(name)


@pytest.mark.parametrize("name", ["dev", "production"])
def test_places_outside_are_open_to_those_who_reach_them_alone(name: str) -> None:
    objects = installation(name)
    providers, tools, key_set = (
        _reaching(place) for place in (ReachablePlace.PROVIDERS, ReachablePlace.TOOLS, ReachablePlace.KEY_SET)
    )
    for workload, labels in pods(objects).items():
        own = pod(labels)
        for port in (80, 443, 25):
            wanted = (workload in providers and port == 443) or (workload in tools and port in (80, 443))
            assert is_open(objects, own, Peer(address=PUBLIC), port) is wanted, (workload, port)
            assert not is_open(objects, own, Peer(address=METADATA), port), workload
        assert is_open(objects, own, DNS, 53, "UDP") and is_open(objects, own, DNS, 53), workload
        for address, port in ((API_SERVER, 443), ("10.0.0.4", 6443), ("192.168.0.4", 6443), (API_SERVER, 10250)):
            wanted = workload in key_set and port in API_PORTS
            assert is_open(objects, own, Peer(address=address), port) is wanted, (workload, address)
        # Some plugins let those through whom a block covers by their address: servers of ours are closed to them.
        reached = {port for port in PORTS for peer in (STRANGER, DNS) if is_open(objects, own, peer, port)}
        assert reached == (set(API_PORTS) if workload in key_set else set()), workload


def test_edges_alone_are_called_from_outside_and_keda_asks_brokers_and_replicas() -> None:
    objects = installation("production", autoscaling="keda")
    assert _called(objects, CONTROLLER) == {("gateway", 8080), ("doors", 8090)}
    assert _called(objects, STRANGER) == set()
    loaded = {"model-gateway", "tool-executor", "gateway", "doors"}
    assert _called(objects, KEDA) == {("nats", 8222), *((name, 8081) for name in loaded)}
    assert _called(installation("production", autoscaling="hpa"), KEDA) == set()


def test_servers_of_yours_are_reached_at_their_address_alone() -> None:
    outside = {
        "nats": {"inCluster": False, "external": {"url": "tls://bus.example.org", "cidr": "10.9.0.0/28", "port": 4333}},
        "redis": {"inCluster": False, "external": {"cidr": "10.9.1.1/32"}},
    }
    objects = render_chart(example("dev") | outside)
    assert not {"nats", "redis", "sentinel"} & set(pods(objects))
    for address, port, clients in (("10.9.0.3", 4333, ON_BUS), ("10.9.1.1", 6379, _reaching(ReachablePlace.REDIS))):
        server = Peer(address=address)
        reaching = {name for name, labels in pods(objects).items() if is_open(objects, pod(labels), server, port)}
        assert reaching == clients
