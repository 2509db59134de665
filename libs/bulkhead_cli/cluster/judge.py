"""All findings on a mesh in a cluster, by what the cluster said. Pure.

In: `Seen` and `Expected`. Out: findings, causes before what follows from them, and one for each workload that is well.
"""

from collections.abc import Iterator

from bulkhead.amounts import format_count
from bulkhead_cli.cluster import autoscaling, fields, pods, surroundings, workloads
from bulkhead_cli.cluster.seen import FORBIDDEN, Expected, Seen
from bulkhead_cli.operate.finding import DoctorFinding, Level

NEEDED = ("pods", "deployments", "statefulsets")
"""Lists without which nothing can be said."""
OPTIONAL = ("scaledobjects", "certificates", "metrics")
"""Kinds that a cluster need not know."""


def judge(seen: Seen, expected: Expected) -> list[DoctorFinding]:
    found = [
        *surroundings.server(seen),
        *_unread(seen),
        *surroundings.namespace(seen),
        *surroundings.nodes(seen),
        *surroundings.claims(seen),
        *surroundings.quotas(seen),
        *surroundings.limit_ranges(seen),
        *surroundings.certificates(seen),
        *workloads.judge(seen, expected),
        *pods.judge(seen),
        *workloads.versions(seen, expected),
        *surroundings.policies(seen, expected),
        *autoscaling.judge(seen),
    ]
    named = {one.what for one in found if one.level != "ok"}
    found += _standing(seen, named)
    # Endpoints and budgets follow from pods that are not ready: told where nothing else is told of the workload.
    unwell = {one.what for one in found if one.level != "ok"}
    return [*found, *surroundings.services(seen, unwell), *surroundings.budgets(seen, unwell)]


def _unread(seen: Seen) -> Iterator[DoctorFinding]:
    refused = [kind for kind, unread in sorted(seen.unread.items()) if unread.why == FORBIDDEN]
    if refused:
        level: Level = "problem" if set(refused) & set(NEEDED) else "warning"
        todo = "ask who administers the cluster for `get` and `list` of them; the cluster role `view` has all but a few"
        yield DoctorFinding("rights", level, f"this user may not list {', '.join(refused)}: not looked at", todo)
    for kind, unread in seen.unread.items():
        if unread.why == FORBIDDEN or kind == "metrics" or (unread.why == "absent" and kind in OPTIONAL):
            continue
        level = "problem" if kind in NEEDED else "warning"
        words = "the cluster does not know them" if unread.why == "absent" else unread.text
        yield DoctorFinding(kind, level, f"not looked at: {words}", "try again; the API server's own log says more")


def _standing(seen: Seen, named: set[str]) -> Iterator[DoctorFinding]:
    """Each workload by its replicas, unless something was said of it."""
    well, total = [], 0
    for one in seen.workloads():
        name, (ready, wanted) = fields.name(one), workloads.counts(one)
        if name in named:
            continue
        if ready < wanted:
            level: Level = "warning" if ready else "problem"
            todo = f"{seen.kubectl} get pods -l app.kubernetes.io/name={name}"
            yield DoctorFinding(name, level, f"{ready} of {format_count(wanted, 'replica')} are ready", todo)
        else:
            well.append(name)
            total += ready
    if well:
        yield DoctorFinding(
            "workloads", "ok", f"{format_count(len(well), 'workload')} with {format_count(total, 'ready replica')}"
        )
