"""What a cluster said, and what a mesh there has. Pure.

In: lists of objects by their plural names; names from the rows of the renderer. Out: values that judges read.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from bulkhead_cli.cluster import fields
from bulkhead_cli.cluster.fields import Object

Why = Literal["absent", "forbidden", "failed"]
ABSENT: Why = "absent"
FORBIDDEN: Why = "forbidden"
FAILED: Why = "failed"


@dataclass(frozen=True, slots=True)
class Unread:
    """A list that could not be had. why: the cluster does not know the kind, refuses it, or did not answer."""

    why: Why
    text: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """Parts of a mesh as it is rendered."""

    services: Mapping[str, str]
    """{name in Kubernetes: Deployment or StatefulSet}"""
    images: Mapping[str, str]
    """{workload: name of its image below `bulkhead/`}"""
    policies: frozenset[str]
    """NetworkPolicies that every overlay has."""
    policies_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """NetworkPolicies that come with a workload."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was looked at, at one moment. promoted: {image: reference} of an overlay, where one is named;
    options: of kubectl, which lead to this cluster."""

    namespace: str
    now: datetime
    lists: Mapping[str, Sequence[Object]]
    unread: Mapping[str, Unread] = field(default_factory=dict)
    server: Object = field(default_factory=dict)
    options: tuple[str, ...] = ()
    promoted: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> Sequence[Object]:
        return self.lists.get(kind, ())

    def looked(self, *kinds: str) -> bool:
        """Whether all objects of these kinds are known, so that one that is not among them does not exist."""
        return all(kind in self.lists and kind not in self.unread for kind in kinds)

    def absent(self, kind: str) -> bool:
        return kind in self.unread and self.unread[kind].why == ABSENT

    @property
    def kubectl(self) -> str:
        """The beginning of a command about this namespace."""
        return shlex.join(("kubectl", *self.options, "-n", self.namespace))

    def workloads(self) -> list[Object]:
        """Deployments and StatefulSets of the mesh, with their kinds."""
        return [
            {**one, "kind": kind}
            for plural, kind in (("deployments", "Deployment"), ("statefulsets", "StatefulSet"))
            for one in self.of(plural)
            if fields.workload_of(one)
        ]

    def pods(self) -> list[Object]:
        """Pods of the mesh."""
        return [one for one in self.of("pods") if fields.workload_of(one)]

    def names(self, kind: str) -> set[str]:
        return {fields.text(one, "metadata", "name") for one in self.of(kind)}

    def events_of(self, kind: str, name: str) -> list[Object]:
        """Warnings about one object, the newest first."""
        found = [
            one
            for one in self.of("events")
            if fields.text(one, "involvedObject", "kind") == kind and fields.text(one, "involvedObject", "name") == name
        ]
        return sorted(found, key=last_seen, reverse=True)


def last_seen(event: Object) -> str:
    """The time of an event: of its series, or its own."""
    return (
        fields.text(event, "series", "lastObservedTime")
        or fields.text(event, "lastTimestamp")
        or fields.text(event, "eventTime")
        or fields.text(event, "metadata", "creationTimestamp")
    )
