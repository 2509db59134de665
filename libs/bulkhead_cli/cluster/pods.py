"""Troubles of pods: what does not start, ends again and again, is not ready, or hangs on a node that is gone. Pure.

In: pods with their events. Out: troubles by workload, several alike as one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bulkhead.amounts import format_count
from bulkhead_cli.cluster import fields
from bulkhead_cli.cluster.fields import Object
from bulkhead_cli.cluster.seen import Seen
from bulkhead_cli.operate.finding import DoctorFinding, Level

PULL = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
REFERENCE = ("CreateContainerConfigError",)
START = ("CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun")
CRASH = "CrashLoopBackOff"
SETTINGS = (2, 78)
"""Exit codes of a process that cannot work with its settings: of our services, and EX_CONFIG of others."""
KILLED = 137
SLOW_S = 60.0
"""Time that a volume may take to be there, and a pod to go beyond its grace period."""
MANY_RESTARTS, RECENT_S = 3, 3600.0
SECRETS = "python -m bulkhead_infra.kubernetes secrets KEYS | kubectl apply -f -"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with one pod. kind: several of one kind are told as one."""

    workload: str
    pod: str
    kind: str
    level: Level
    detail: str
    todo: str


def judge(seen: Seen) -> list[DoctorFinding]:
    """Findings on all pods, one for each kind of trouble of a workload."""
    found: dict[tuple[str, str], list[Trouble]] = {}
    for pod in seen.pods():
        for trouble in troubles(pod, seen):
            found.setdefault((trouble.workload, trouble.kind), []).append(trouble)
    return [_told(alike) for alike in found.values()]


def _told(alike: Sequence[Trouble]) -> DoctorFinding:
    first = alike[0]
    more = f" ({len(alike)} pods: {fields.some([one.pod for one in alike])})" if len(alike) > 1 else ""
    return DoctorFinding(first.workload, first.level, first.detail + more, first.todo)


def troubles(pod: Object, seen: Seen) -> Iterator[Trouble]:
    """Everything that keeps one pod from working; nothing for one that works, or ended well."""
    phase = fields.text(pod, "status", "phase")
    if fields.text(pod, "metadata", "deletionTimestamp"):
        yield from _leaving(pod, seen)
    elif phase == "Failed" and not _of_job(pod):
        reason = fields.said(pod, "status", "reason") or "Failed"
        words = fields.said(pod, "status", "message")
        todo = f"another has its place; look at the node, then {seen.kubectl} delete pod {fields.name(pod)}"
        yield _trouble(pod, "failed", "warning", f"a pod ended: {reason} {words}".strip(), todo)
    elif phase not in ("Succeeded", "Failed"):
        yield from _unscheduled(pod, seen)
        yield from _containers(pod, seen)


def _of_job(pod: Object) -> bool:
    return any(fields.text(one, "kind") == "Job" for one in fields.rows(pod, "metadata", "ownerReferences"))


def _trouble(pod: Object, kind: str, level: Level, detail: str, todo: str) -> Trouble:
    return Trouble(fields.workload_of(pod), fields.name(pod), kind, level, detail, todo)


def _leaving(pod: Object, seen: Seen) -> Iterator[Trouble]:
    """deletionTimestamp is when the grace period ends."""
    late_s = fields.age_s(seen.now, pod, "metadata", "deletionTimestamp")
    if late_s < SLOW_S:
        return
    node, name = fields.name(pod, "spec", "nodeName"), fields.name(pod)
    detail = f"{name} has been Terminating for {late_s / 60:.0f} min beyond its grace period, on node {node}"
    todo = (
        f"bring node {node} back. If it is off for good, and only then: {seen.kubectl} delete pod {name} --force; two "
        "pods of one name at a time would write one disk"
    )
    yield _trouble(pod, "terminating", "problem", detail, todo)


def _unscheduled(pod: Object, seen: Seen) -> Iterator[Trouble]:
    scheduled = fields.condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        words = fields.said(scheduled, "message") or fields.said(scheduled, "reason")
        todo = "add a node, or room on one; a claim that is not bound, a taint or a quota of nodes stand in the message"
        yield _trouble(pod, "unscheduled", "problem", f"no node takes its pod: {words}", todo)


def _containers(pod: Object, seen: Seen) -> Iterator[Trouble]:
    name = fields.name(pod)
    statuses = [*fields.rows(pod, "status", "initContainerStatuses"), *fields.rows(pod, "status", "containerStatuses")]
    creating = fields.condition(pod, "PodScheduled").get("status") == "True" and not statuses
    for status in statuses:
        reason = fields.said(status, "state", "waiting", "reason", most=60)
        words = fields.said(status, "state", "waiting", "message")
        if reason in PULL:
            yield _trouble(pod, "image", "problem", f"{reason}: {words or _image(status)}", _pull_todo(reason, seen))
        elif reason in REFERENCE:
            todo = f"{SECRETS}; a ConfigMap comes with the overlay: apply it again"
            yield _trouble(pod, "reference", "problem", f"{reason}: {words}", todo)
        elif reason in START:
            todo = f"its events say more: {seen.kubectl} describe pod {name}"
            yield _trouble(pod, "start", "problem", f"{reason}: {words}", todo)
        elif reason == CRASH or fields.number(status, "state", "terminated", "exitCode"):
            yield _ended(pod, status, seen)
        elif reason in ("ContainerCreating", "PodInitializing"):
            creating = True
        elif not fields.entries(status, "state", "terminated"):
            yield from _running(pod, status, seen)
    if creating:
        yield from _creating(pod, seen)


def _image(status: Object) -> str:
    return fields.said(status, "image")


def _pull_todo(reason: str, seen: Seen) -> str:
    if reason == "ErrImageNeverPull":
        return "dev pulls nothing: build the image and load it into this node (docs/how-to/kubernetes.md)"
    if reason == "InvalidImageName":
        return "correct `images` of the overlay"
    return (
        "is the digest in that registry, may the nodes reach it, and does the login fit (imagePullSecrets)? A "
        f"placeholder means that nothing was promoted. {seen.kubectl} get events"
    )


def _creating(pod: Object, seen: Seen) -> Iterator[Trouble]:
    """Volumes come before containers: a pod that lacks one has no status but its events."""
    waiting_s = fields.age_s(seen.now, pod, "metadata", "creationTimestamp")
    for event in seen.events_of("Pod", fields.text(pod, "metadata", "name")):
        reason, words = fields.text(event, "reason"), fields.said(event, "message")
        if reason == "FailedMount" and ("not found" in words or "non-existent" in words or "not registered" in words):
            todo = f"{SECRETS}, or wait for cert-manager's certificate; a ConfigMap comes with the overlay"
            yield _trouble(pod, "mount", "problem", f"a volume lacks its source: {words}", todo)
            return
        if reason in ("FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"):
            todo = f"{seen.kubectl} describe pod {fields.name(pod)}; a disk may still hang on a node that is gone"
            yield _trouble(pod, "mount", "problem" if waiting_s > SLOW_S else "warning", f"{reason}: {words}", todo)
            return
    if waiting_s > SLOW_S:
        todo = f"its events say more: {seen.kubectl} describe pod {fields.name(pod)}"
        detail = f"its container is not made yet, {waiting_s:.0f} s after the pod"
        yield _trouble(pod, "mount", "warning", detail, todo)


def _ended(pod: Object, status: Object, seen: Seen) -> Trouble:
    last = fields.at(status, "state", "terminated") or fields.at(status, "lastState", "terminated")
    restarts = fields.number(status, "restartCount")
    again = f"{CRASH}, " if fields.text(status, "state", "waiting", "reason") == CRASH else ""
    detail = f"{again}{format_count(restarts, 'restart')}; {_reason(last)}"
    return _trouble(pod, "crash", "problem", detail, _ended_todo(last, fields.name(pod), seen))


def _reason(last: object) -> str:
    """How a container ended last, in a few words."""
    reason, code = fields.said(last, "reason", most=60), fields.number(last, "exitCode")
    words = fields.said(last, "message")
    known = bool(reason) or fields.at(last, "exitCode") is not None
    how = f"it ended by {reason or 'itself'} (exit code {code})" if known else "how it ended is not known"
    if code in SETTINGS and reason != "OOMKilled":
        how += ", for settings that cannot work"
    return f"{how}: {words}" if words else how


def _ended_todo(last: object, pod: str, seen: Seen) -> str:
    code, logs = fields.number(last, "exitCode"), f"{seen.kubectl} logs {pod} --previous"
    if fields.text(last, "reason") == "OOMKilled":
        return "raise its memory (requests and limits) in an overlay of yours; look at what it did then: " + logs
    if code in SETTINGS:
        return f"correct the setting, Secret or ConfigMap that its last lines name: {logs}"
    if code == KILLED:
        return f"its liveness probe, or the node, killed it: {seen.kubectl} describe pod {pod}; {logs}"
    return f"its log says why: {logs}"


def _running(pod: Object, status: Object, seen: Seen) -> Iterator[Trouble]:
    name = fields.name(pod)
    if status.get("ready") is True:
        yield from _restarted(pod, status, seen)
        return
    since_s = fields.age_s(seen.now, status, "state", "running", "startedAt")
    if status.get("started") is not True:
        if since_s > SLOW_S:
            detail = f"it has been starting for {since_s:.0f} s"
            todo = f"streams, brokers, Redis may come later than it; what it waits for: {seen.kubectl} logs {name}"
            yield _trouble(pod, "starting", "warning", detail, todo)
        return
    reason = fields.said(pod, "status", "reason", most=60)
    event = next((one for one in seen.events_of("Pod", name) if fields.text(one, "reason") == "Unhealthy"), {})
    words = f": {fields.said(event, 'message', most=160)}" if event else ""
    probe = f"{seen.kubectl} exec {name} -- python3 -P -m bulkhead.runtime.process.container_probe"
    todo = f"its own words: {probe}, or its log: {seen.kubectl} logs {name}"
    unheard = reason == "NodeLost" or fields.text(pod, "status", "phase") == "Unknown"
    detail = "its node does not tell how it is" if unheard else f"it runs and is not ready{words}"
    yield _trouble(pod, "unready", "problem", detail, "look at its node" if unheard else todo)


def _restarted(pod: Object, status: Object, seen: Seen) -> Iterator[Trouble]:
    restarts, last = fields.number(status, "restartCount"), fields.at(status, "lastState", "terminated")
    if restarts < MANY_RESTARTS or not last or fields.age_s(seen.now, last, "finishedAt") > RECENT_S:
        return
    detail = f"it runs after {restarts} restarts; {_reason(last)}"
    yield _trouble(pod, "restarts", "warning", detail, _ended_todo(last, fields.name(pod), seen))
