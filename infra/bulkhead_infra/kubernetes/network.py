"""NetworkPolicies: nothing is open but what the policy's `reaches` and the bus need. Pure.

In: a Policy. Out: default-deny, name service, one pair of policies per flow between workloads (who may call, who may be
called), one policy per place outside. A component brings the flows of its own server along.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bulkhead_infra.identity.policy import IdentityPolicy, ReachablePlace
from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.objects import NAME, Object
from bulkhead_infra.services import ServiceDefinition

NATS, ROUTES, MONITOR, REDIS, SENTINEL, MODEL = 4222, 6222, 8222, 6379, 26379, 8000
CLIENTS_LABEL = "bulkhead.dev/clients"
"""A namespace with this label may call the gateway: that of the ingress controller, for one."""
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
"""No place outside: the cluster's own networks, and the metadata service of a cloud."""
LINK_LOCAL = "169.254.0.0/16"
API_SERVER = (443, 6443)
"""Ports of the API server: it has no labels that a policy could name, only an address in the cluster's networks."""
OUTSIDE: Mapping[ReachablePlace, tuple[int, ...]] = {ReachablePlace.PROVIDERS: (443,), ReachablePlace.TOOLS: (80, 443)}


@dataclass(frozen=True, slots=True)
class Flow:
    """Workloads that may open connections to a server, at one port, under a name of its own."""

    name: str
    clients: tuple[str, ...]
    server: str
    port: int


def reaching(rules: IdentityPolicy, place: ReachablePlace) -> tuple[str, ...]:
    """Names of the workloads that may reach a place."""
    return tuple(sorted(objects.name_of(name) for name, row in rules.services.items() if place in row.reaches))


def bus_flows(rules: IdentityPolicy) -> tuple[Flow, ...]:
    """Connections to the brokers, and of the brokers to each other."""
    clients = sorted((*map(objects.name_of, rules.services), "provision-streams", "upkeep"))
    return Flow("bus", tuple(clients), "nats", NATS), Flow("bus-routes", ("nats",), "nats", ROUTES)


def redis_flows(rules: IdentityPolicy) -> tuple[Flow, ...]:
    """Connections to one Redis."""
    return (Flow("redis", reaching(rules, ReachablePlace.REDIS), "redis", REDIS),)


def sentinel_flows(rules: IdentityPolicy) -> tuple[Flow, ...]:
    """Connections of servers and sentinels, beside those, where Redis fails over."""
    return (
        Flow("redis-watch", ("redis", "sentinel"), "redis", REDIS),
        Flow(
            "sentinel",
            tuple(sorted((*reaching(rules, ReachablePlace.REDIS), "redis", "sentinel"))),
            "sentinel",
            SENTINEL,
        ),
    )


def offline_flows(rules: IdentityPolicy) -> tuple[Flow, ...]:
    return (Flow("offline-model", reaching(rules, ReachablePlace.PROVIDERS), "offline-model", MODEL),)


def between(flows: Iterable[Flow]) -> list[Object]:
    """Both ends of each flow."""
    found = []
    for flow in flows:
        ports = [_tcp(flow.port)]
        called = [{"from": [{"podSelector": _named(flow.clients)}], "ports": ports}]
        call = [{"to": [{"podSelector": _named((flow.server,))}], "ports": ports}]
        found.append(_policy(f"{flow.name}-servers", _named((flow.server,)), ingress=called))
        found.append(_policy(f"{flow.name}-clients", _named(flow.clients), egress=call))
    return found


def opened(name: str, servers: Sequence[str], namespace: str, port: int) -> Object:
    """One port of some servers, for all pods of another namespace."""
    callers = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    return _policy(name, _named(servers), ingress=[{"from": [callers], "ports": [_tcp(port)]}])


def base(rules: IdentityPolicy, rows: Mapping[str, ServiceDefinition]) -> list[Object]:
    """Default-deny, the name service, and the places outside."""
    named = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    servers = {"namespaceSelector": named, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    dns = [{"to": [servers], "ports": [{"protocol": "UDP", "port": 53}, _tcp(53)]}]
    found = [_policy("default-deny", {}, ingress=[], egress=[]), _policy("dns", {}, egress=dns)]
    for place, ports in OUTSIDE.items():
        world = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PRIVATE)}}
        rule = [{"to": [world], "ports": [_tcp(port) for port in ports]}]
        found.append(_policy(f"reaches-{place.value}", _named(reaching(rules, place)), egress=rule))
    found.append(_policy("reaches-key-set", _named(reaching(rules, ReachablePlace.KEY_SET)), egress=[_api_server()]))
    gateway = Flow("gateway-http", reaching(rules, ReachablePlace.GATEWAY), "gateway", rows["gateway"].port)
    found.extend(between((gateway,)))
    for name, row in rows.items():
        if row.port and ReachablePlace.CLIENTS in rules.services[name].reaches:
            kube = objects.name_of(name)
            callers = {"namespaceSelector": {"matchLabels": {CLIENTS_LABEL: "true"}}}
            rule = [{"from": [callers], "ports": [_tcp(row.port)]}]
            found.append(_policy(f"{kube}-{ReachablePlace.CLIENTS.value}", _named((kube,)), ingress=rule))
    return found


def _api_server() -> Object:
    blocks = [{"ipBlock": {"cidr": cidr}} for cidr in PRIVATE if cidr != LINK_LOCAL]
    return {"to": blocks, "ports": [_tcp(port) for port in API_SERVER]}


def _policy(
    name: str, pods: Object, *, ingress: Sequence[Object] | None = None, egress: Sequence[Object] | None = None
) -> Object:
    directions = {"Ingress": ingress, "Egress": egress}
    rules = {key.lower(): list(given) for key, given in directions.items() if given}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": dict(objects.SHARED_LABELS)},
        "spec": {
            "podSelector": pods,
            "policyTypes": [key for key, given in directions.items() if given is not None],
            **rules,
        },
    }


def _named(names: Sequence[str]) -> Object:
    if len(names) == 1:
        return {"matchLabels": objects.selector(names[0])}
    return {
        "matchLabels": dict(objects.PART),
        "matchExpressions": [{"key": NAME, "operator": "In", "values": list(names)}],
    }


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}
