"""Autoscaling of a mesh: KEDA's ScaledObjects, HorizontalPodAutoscalers, and the metrics that they need. Pure.

In: their conditions. Out: findings; one for a missing metrics API, not one for each autoscaler that misses it.
"""

from collections.abc import Iterator

from bulkhead_cli.cluster import fields
from bulkhead_cli.cluster.seen import Seen
from bulkhead_cli.operate.finding import DoctorFinding

KEDA_POLICY = "keda-lag"
"""A NetworkPolicy of the component `keda`: it stands where ScaledObjects were refused."""
OF_METRICS = ("FailedGetResourceMetric", "FailedComputeMetricsReplicas")


def judge(seen: Seen) -> Iterator[DoctorFinding]:
    yield from _keda(seen)
    yield from _metrics(seen)
    yield from _autoscalers(seen)


def _keda(seen: Seen) -> Iterator[DoctorFinding]:
    if seen.absent("scaledobjects"):
        if KEDA_POLICY in seen.names("networkpolicies"):
            todo = (
                "install KEDA and apply the overlay again, or take the component `hpa` instead (docs/how-to/scaling.md)"
            )
            detail = "the overlay has ScaledObjects, and the cluster does not know any: replicas stay as they are"
            yield DoctorFinding("KEDA", "problem", detail, todo)
        return
    for one in seen.of("scaledobjects"):
        if not fields.workload_of(one):
            continue
        name = f"autoscaler of {fields.name(one)}"
        ready, fallback = fields.condition(one, "Ready"), fields.condition(one, "Fallback")
        describe = f"{seen.kubectl} describe scaledobject {fields.name(one)}"
        if ready.get("status") != "True":
            words = fields.said(ready, "message") or fields.said(ready, "reason") or "KEDA says nothing of it"
            yield DoctorFinding(
                name, "problem", f"its ScaledObject is not ready: {words}", f"does KEDA run? {describe}"
            )
        elif fallback.get("status") == "True":
            todo = f"may namespace keda reach the brokers' monitoring and /metrics (keda-lag, keda-load)? {describe}"
            detail = f"its metrics cannot be read, so that the fallback counts: {fields.said(fallback, 'message')}"
            yield DoctorFinding(name, "warning", detail, todo)
        if fields.condition(one, "Paused").get("status") == "True":
            todo = f"{seen.kubectl} annotate scaledobject {fields.name(one)} autoscaling.keda.sh/paused-"
            yield DoctorFinding(name, "warning", "it is paused", todo)


def _metrics(seen: Seen) -> Iterator[DoctorFinding]:
    unread = seen.unread.get("metrics")
    if not seen.of("horizontalpodautoscalers") or unread is None or unread.why == "forbidden":
        return
    words = "is not installed" if unread.why == "absent" else f"does not answer: {unread.text}"
    todo = "install metrics-server, or mend it: kubectl get apiservice v1beta1.metrics.k8s.io"
    yield DoctorFinding("metrics", "problem", f"the metrics API {words}, and autoscalers go by CPU", todo)


def _autoscalers(seen: Seen) -> Iterator[DoctorFinding]:
    told = "metrics" in seen.unread
    for one in seen.of("horizontalpodautoscalers"):
        target = fields.name(one, "spec", "scaleTargetRef", "name")
        able, active = fields.condition(one, "AbleToScale"), fields.condition(one, "ScalingActive")
        limited = fields.condition(one, "ScalingLimited")
        describe = f"{seen.kubectl} describe hpa {fields.name(one)}"
        name = f"autoscaler of {target}"
        if able.get("status") == "False":
            yield DoctorFinding(
                name, "problem", f"it cannot scale: {fields.said(able, 'message')}", f"its events say more: {describe}"
            )
        reason = fields.text(active, "reason")
        if active.get("status") == "False" and reason != "ScalingDisabled" and not (told and reason in OF_METRICS):
            yield DoctorFinding(
                name,
                "problem",
                f"it has no metrics: {fields.said(active, 'message')}",
                f"its events say more: {describe}",
            )
        if limited.get("status") == "True" and fields.text(limited, "reason") == "TooManyReplicas":
            most = fields.number(one, "spec", "maxReplicas")
            todo = "raise its maximum in an overlay of yours, or what it waits for: a provider, a tool, a disk"
            yield DoctorFinding(name, "warning", f"it would run more than its {most} replicas", todo)
