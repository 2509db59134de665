"""Surroundings of workloads: namespace, quotas, nodes, claims, budgets, Services, NetworkPolicies, certificates. Pure.

In: objects beside the workloads. Out: findings.
"""

from collections.abc import Collection, Iterator
from datetime import timedelta

from bulkhead.amounts import format_count
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.cluster import fields
from bulkhead_cli.cluster.fields import Object
from bulkhead_cli.cluster.seen import Expected, Seen
from bulkhead_cli.cluster.workloads import counts
from bulkhead_cli.operate.finding import DoctorFinding

MIN_VERSION = (1, 30)
ENFORCE = "pod-security.kubernetes.io/enforce"
PRESSURE = ("DiskPressure", "MemoryPressure", "PIDPressure")
FULL = 1.0
WARN_BEFORE = timedelta(days=30)
ISSUED_LATER = timedelta(minutes=5)
"""A broker that started so long before a certificate was issued still shows the one before."""
APPLY_AGAIN = "apply the overlay again: its component `infrastructure` holds them"


def server(seen: Seen) -> Iterator[DoctorFinding]:
    version = fields.said(seen.server, "gitVersion", most=60) or "of unknown version"
    parts = tuple(fields.text(seen.server, key).rstrip("+") for key in ("major", "minor"))
    if all(part.isascii() and part.isdigit() for part in parts) and tuple(map(int, parts)) < MIN_VERSION:
        todo = "upgrade the cluster: before 1.30 it refuses `preStop.sleep`, and with it the gateway"
        yield DoctorFinding("cluster", "problem", f"Kubernetes {version}", todo)
    else:
        yield DoctorFinding("cluster", "ok", f"Kubernetes {version}")


def namespace(seen: Seen) -> Iterator[DoctorFinding]:
    for one in seen.of("namespace"):
        if fields.text(one, "status", "phase") == "Terminating":
            yield DoctorFinding(
                "namespace", "problem", f"{seen.namespace} is being deleted", "wait, then set it up again"
            )
        level = fields.said(one, "metadata", "labels", ENFORCE, most=60)
        if level != "restricted":
            detail = f"Pod Security enforces {level or 'nothing'} in {seen.namespace}, and `restricted` is rendered"
            yield DoctorFinding("namespace", "warning", detail, "kubectl apply -f infra/kubernetes/base/namespace.yaml")


def quotas(seen: Seen) -> Iterator[DoctorFinding]:
    for one in seen.of("resourcequotas"):
        used = fields.entries(one, "status", "used")
        full = []
        for resource, hard in sorted(fields.entries(one, "status", "hard").items()):
            most, taken = fields.quantity(hard), fields.quantity(used.get(resource))
            if most is not None and taken is not None and taken >= FULL * most:
                full.append(f"{clean_line(resource, 60)} ({clean_line(str(used[resource]), 30)} used)")
        if full:
            todo = (
                f"the next pod of a rollout or a scale-up is refused: raise it, {seen.kubectl} describe resourcequota"
            )
            yield DoctorFinding(f"quota {fields.name(one)}", "warning", f"used up: {fields.some(full)}", todo)


def limit_ranges(seen: Seen) -> Iterator[DoctorFinding]:
    """Bounds for containers that the templates break: a pod that runs stays, the next one is refused."""
    for one in seen.of("limitranges"):
        wrong = [
            f"{fields.name(workload)} ({text})"
            for bound in fields.rows(one, "spec", "limits")
            if bound.get("type") in ("Container", "Pod")  # A pod has one container.
            for workload in seen.workloads()
            for container in fields.rows(workload, "spec", "template", "spec", "containers")
            for text in _beyond(bound, container)
        ]
        if wrong:
            todo = f"change the LimitRange, or sizes in an overlay of yours: {seen.kubectl} describe limitrange"
            detail = f"the next pods are refused: {fields.some(wrong)}"
            yield DoctorFinding(f"limit range {fields.name(one)}", "problem", detail, todo)


def _beyond(bound: Object, container: Object) -> Iterator[str]:
    for key, given, sign in (("max", "limits", 1), ("min", "requests", -1)):
        for resource, limit in sorted(fields.entries(bound, key).items()):
            most, own = fields.quantity(limit), fields.quantity(fields.at(container, "resources", given, resource))
            if most is not None and own is not None and sign * own > sign * most:
                shown = clean_line(str(fields.at(container, "resources", given, resource)), 30)
                yield f"{given}.{clean_line(resource, 40)} {shown}, {key} {clean_line(str(limit), 30)}"
    for resource, limit in sorted(fields.entries(bound, "maxLimitRequestRatio").items()):
        ratio = fields.quantity(limit)
        least, most = (
            fields.quantity(fields.at(container, "resources", one, resource)) for one in ("requests", "limits")
        )
        if ratio is not None and least and most is not None and most / least > ratio:
            yield (
                f"{clean_line(resource, 40)} limit to request ratio {most / least:g}, most {clean_line(str(limit), 30)}"
            )


def nodes(seen: Seen) -> Iterator[DoctorFinding]:
    """Nodes that bear pods of the mesh."""
    pods: dict[str, list[str]] = {}
    for pod in seen.pods():
        if fields.text(pod, "spec", "nodeName") and fields.text(pod, "status", "phase") != "Succeeded":
            pods.setdefault(fields.name(pod, "spec", "nodeName"), []).append(fields.name(pod))
    there = {fields.name(one): one for one in seen.of("nodes")}
    for name, own in sorted(pods.items()):
        what, bears = f"node {name}", f"{format_count(len(own), 'pod')} of the mesh ({fields.some(own)})"
        if not seen.looked("nodes"):
            continue
        if name not in there:
            todo = "its pods are made again elsewhere within minutes; those with a disk wait until it is free"
            yield DoctorFinding(what, "problem", f"it is gone, with {bears}", todo)
            continue
        ready = fields.condition(there[name], "Ready")
        if ready.get("status") != "True":
            words = fields.said(ready, "message") or fields.said(ready, "reason") or "it does not tell how it is"
            todo = (
                "bring it back; after five minutes its pods are made again elsewhere, but for those with a disk or a "
                f"name of their own: delete the node once it is off for good (kubectl delete node {name})"
            )
            yield DoctorFinding(what, "problem", f"NotReady, with {bears}: {words}", todo)
        pressing = [kind for kind in PRESSURE if fields.condition(there[name], kind).get("status") == "True"]
        if pressing:
            todo = "free disk or memory there: it evicts pods"
            yield DoctorFinding(what, "warning", f"{', '.join(pressing)}, with {bears}", todo)


def claims(seen: Seen) -> Iterator[DoctorFinding]:
    for one in seen.of("persistentvolumeclaims"):
        name, phase = fields.name(one), fields.said(one, "status", "phase", most=40)
        if not fields.workload_of(one) and not _claimed(name, seen):
            continue
        if phase == "Lost":
            todo = "its volume is gone: bring it back, or restore a backup (docs/how-to/kubernetes.md)"
            yield DoctorFinding(f"claim {name}", "problem", "its volume is gone", todo)
        elif phase == "Pending":
            events = seen.events_of("PersistentVolumeClaim", fields.text(one, "metadata", "name"))
            words = f": {fields.said(events[0], 'message')}" if events else ""
            todo = "the cluster needs a default StorageClass with room, or name one in an overlay of yours"
            yield DoctorFinding(f"claim {name}", "problem", f"it is not bound{words}", todo)


def _claimed(name: str, seen: Seen) -> bool:
    """Whether a claim is of a pod that has a name of its own: `data-nats-0`."""
    return any(name.startswith(f"data-{fields.name(one)}-") for one in seen.of("statefulsets"))


def budgets(seen: Seen, unwell: Collection[str]) -> Iterator[DoctorFinding]:
    """Budgets that let no pod go. unwell: workloads of which something is told already."""
    for one in seen.of("poddisruptionbudgets"):
        expected, healthy = fields.number(one, "status", "expectedPods"), fields.number(one, "status", "currentHealthy")
        if (
            fields.workload_of(one) in ("", *unwell)
            or not expected
            or fields.number(one, "status", "disruptionsAllowed")
        ):
            continue
        wanted = fields.number(one, "status", "desiredHealthy")
        detail = f"no pod of {expected} may be evicted: {healthy} are healthy, {wanted} must be"
        todo = "draining a node waits for it: let the others become ready first" + (
            "; `minAvailable` as high as the replicas never lets one go" if wanted >= expected else ""
        )
        yield DoctorFinding(f"budget of {fields.name(one)}", "warning", detail, todo)


def services(seen: Seen, unwell: Collection[str]) -> Iterator[DoctorFinding]:
    """Services without an endpoint that is ready, although replicas are wanted. unwell: as above."""
    if not seen.looked("services", "endpointslices"):
        return
    wanted = {fields.name(one): counts(one)[1] for one in seen.workloads()}
    ready = {
        fields.text(one, "metadata", "labels", "kubernetes.io/service-name")
        for one in seen.of("endpointslices")
        if any(fields.at(end, "conditions", "ready") is not False for end in fields.rows(one, "endpoints"))
    }
    for one in seen.of("services"):
        owner, name = fields.workload_of(one), fields.name(one)
        if owner not in unwell and wanted.get(owner, 0) and name not in ready:
            todo = f"do its pods become ready, and its selector fit them? {seen.kubectl} describe service {name}"
            yield DoctorFinding(
                f"service {name}", "problem", "no endpoint of it is ready: whoever calls it is refused", todo
            )


def policies(seen: Seen, expected: Expected) -> Iterator[DoctorFinding]:
    if not seen.looked("networkpolicies") or not seen.workloads():
        return
    there, running = seen.names("networkpolicies"), {fields.name(one) for one in seen.workloads()}
    wanted = set(expected.policies)
    for workload in running & set(expected.policies_of):
        wanted |= expected.policies_of[workload]
    missing = sorted(wanted - there)
    if "default-deny" in missing:
        detail = "default-deny is missing: pods may be called by anybody, and call whatever they like"
        yield DoctorFinding("network policies", "problem", detail, APPLY_AGAIN)
    if others := [name for name in missing if name != "default-deny"]:
        closed = (
            "connections that they open are refused" if "default-deny" in there else "what they open is not bounded"
        )
        yield DoctorFinding("network policies", "problem", f"{fields.some(others)} are missing: {closed}", APPLY_AGAIN)


def certificates(seen: Seen) -> Iterator[DoctorFinding]:
    """cert-manager's, where there are any, and brokers that still show the one before."""
    for one in seen.of("certificates"):
        if not fields.workload_of(one):
            continue
        name, ready = f"certificate {fields.name(one)}", fields.condition(one, "Ready")
        end, renewal = fields.moment(one, "status", "notAfter"), fields.moment(one, "status", "renewalTime")
        describe = f"{seen.kubectl} describe certificate {fields.name(one)}"
        if ready.get("status") != "True":
            words = fields.said(ready, "message") or fields.said(ready, "reason") or "cert-manager says nothing of it"
            yield DoctorFinding(name, "problem", f"it is not ready: {words}", f"does cert-manager run? {describe}")
        if end and end <= seen.now:
            yield DoctorFinding(
                name,
                "problem",
                f"it ended on {end:%Y-%m-%d}: no service reaches the broker",
                f"its events say more: {describe}",
            )
        elif end and (end - seen.now < WARN_BEFORE or (renewal and renewal + WARN_BEFORE < seen.now)):
            detail = f"it ends on {end:%Y-%m-%d}, and was not renewed"
            yield DoctorFinding(name, "warning", detail, f"does cert-manager run? {describe}")
        issued = fields.moment(one, "status", "notBefore")
        older = [
            fields.name(pod)
            for pod in seen.pods()
            if fields.workload_of(pod) == "nats"
            and issued
            and fields.text(one, "spec", "secretName") == "bulkhead-nats-tls"
            if (started := fields.moment(pod, "status", "startTime")) and started + ISSUED_LATER < issued
        ]
        if older:
            todo = f"{seen.kubectl} rollout restart statefulset/nats, before the old one ends"
            yield DoctorFinding(
                name, "warning", f"{fields.some(older)} started before it was issued, and show another", todo
            )
