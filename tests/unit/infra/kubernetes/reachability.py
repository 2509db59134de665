"""Which connections NetworkPolicies let through, computed as Kubernetes defines them.

In: objects of one namespace. Out: whether a pod may open a connection to a pod of the namespace, to a pod of another
one, or to an address. A pod that a policy selects for a direction is closed in it, but for what some policy opens.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

POD_ADDRESS = "10.244.1.7"
Labels = Mapping[str, str]
Object = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: labels of a pod and of its namespace ("" for this one), or an address outside."""

    labels: tuple[tuple[str, str], ...] = ()
    namespace: tuple[tuple[str, str], ...] | None = None
    address: str = ""


def pods(objects: list[Object]) -> dict[str, Labels]:
    """Labels of each workload's pods, by the workload's name label."""
    templates = [
        each["spec"]["template"]["metadata"]["labels"] for each in objects if "template" in each.get("spec", {})
    ]
    return {labels["app.kubernetes.io/name"]: labels for labels in templates}


def pod(labels: Labels) -> Peer:
    return Peer(labels=tuple(sorted(labels.items())))


def is_open(objects: list[Object], client: Peer, server: Peer, port: int, protocol: str = "TCP") -> bool:
    """Both ends have to let it through; an end outside of the namespace has no policies here."""
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    return all(
        _lets(policies, own, other, direction, port, protocol)
        for own, other, direction in ((client, server, "Egress"), (server, client, "Ingress"))
        if not own.address and own.namespace is None
    )


def _lets(policies: list[Object], own: Peer, other: Peer, direction: str, port: int, protocol: str) -> bool:
    labels = dict(own.labels)
    selecting = [row for row in policies if direction in row["policyTypes"] and _selects(row["podSelector"], labels)]
    if not selecting:
        return True
    key, side = direction.lower(), "to" if direction == "Egress" else "from"
    rules: Iterator[Object] = (rule for row in selecting for rule in row.get(key) or ())
    return any(_peer(rule.get(side), other) and _port(rule.get("ports"), port, protocol) for rule in rules)


def _peer(rows: list[Object] | None, other: Peer) -> bool:
    return not rows or any(_is(row, other) for row in rows)


def _is(row: Object, other: Peer) -> bool:
    if "ipBlock" in row:
        # Some network plugins hold the address of a pod against blocks too, others do not: the wider reading counts.
        address = ipaddress.ip_address(other.address or POD_ADDRESS)
        block = row["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(inner) for inner in block.get("except", ()))
    if other.address:
        return False
    if "namespaceSelector" in row:
        if other.namespace is None or not _selects(row["namespaceSelector"], dict(other.namespace)):
            return False
    elif other.namespace is not None:
        return False
    return _selects(row.get("podSelector", {}), dict(other.labels))


def _port(rows: list[Object] | None, port: int, protocol: str) -> bool:
    for row in rows or ():
        assert isinstance(row.get("port"), int) and "endPort" not in row, f"the evaluator does not know {row}"
    return not rows or any(row["port"] == port and row.get("protocol", "TCP") == protocol for row in rows)


def _selects(selector: Object, labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}, selector
    for row in selector.get("matchExpressions", ()):
        assert row["operator"] == "In", f"the evaluator does not know {row}"
        if labels.get(row["key"]) not in row["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
