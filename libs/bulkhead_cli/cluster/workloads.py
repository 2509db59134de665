"""Workloads against what is rendered: missing ones, pods that cannot be made, references to nothing, other images.

Pure. In: Deployments, StatefulSets, Jobs. Out: findings.
"""

from collections import Counter
from collections.abc import Iterator

from bulkhead.amounts import format_count
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.cluster import fields, refusals
from bulkhead_cli.cluster.fields import Object
from bulkhead_cli.cluster.pods import SECRETS
from bulkhead_cli.cluster.seen import Expected, Seen
from bulkhead_cli.operate.finding import DoctorFinding, Level

PLACEHOLDER = "sha256:" + "0" * 64
SHOWN_DIGEST = 12
JOB = "provision-streams"


def judge(seen: Seen, expected: Expected) -> Iterator[DoctorFinding]:
    """Findings on all workloads but on their pods."""
    if not seen.looked("deployments", "statefulsets"):
        return
    there = {fields.name(one) for one in seen.workloads()}
    missing = [name for name in expected.services if name not in there]
    if missing and not there:
        todo = "apply an overlay (docs/how-to/kubernetes.md), or name another namespace with --namespace"
        yield DoctorFinding("workloads", "problem", f"no workload of a mesh is in namespace {seen.namespace}", todo)
        return
    for name in missing:
        detail = f"there is no {expected.services[name]} of this name"
        yield DoctorFinding(
            name, "problem", detail, "apply the overlay; what the API server refused stands in its output"
        )
    for one in seen.workloads():
        yield from _refused(one, seen)
        yield from _stuck(one, seen)
        yield from _by_hand(one, expected, seen)
    yield from _jobs(seen)
    yield from _references(seen)


def counts(one: Object) -> tuple[int, int]:
    """Replicas that are ready, and wanted ones."""
    named = fields.at(one, "spec", "replicas") is not None
    wanted = fields.number(one, "spec", "replicas") if named else 1
    return fields.number(one, "status", "readyReplicas"), wanted


def _refused(one: Object, seen: Seen) -> Iterator[DoctorFinding]:
    """Pods that the API server does not take. A Deployment says so; of others the events do, for an hour."""
    ready, wanted = counts(one)
    name, kind = fields.name(one), fields.text(one, "kind")
    failure = fields.condition(one, "ReplicaFailure")
    messages = [fields.text(failure, "message")] if failure.get("status") == "True" else []
    if not messages and ready < wanted:
        sets = [name for name in _replica_sets(seen) if name.rpartition("-")[0] == fields.name(one)]
        sources = [(kind, name), *(("ReplicaSet", each) for each in sets if kind == "Deployment")]
        events = [event for source in sources for event in seen.events_of(*source)]
        messages = [fields.text(event, "message") for event in events if fields.text(event, "reason") == "FailedCreate"]
    if messages:
        yield DoctorFinding(name, "problem", *refusals.explained(messages[0], seen))


def _replica_sets(seen: Seen) -> list[str]:
    found = [
        fields.text(one, "involvedObject", "name")
        for one in seen.of("events")
        if fields.text(one, "involvedObject", "kind") == "ReplicaSet"
    ]
    return list(dict.fromkeys(found))


def _stuck(one: Object, seen: Seen) -> Iterator[DoctorFinding]:
    progressing = fields.condition(one, "Progressing")
    if progressing.get("status") == "False" and fields.text(progressing, "reason") == "ProgressDeadlineExceeded":
        name = fields.name(one)
        todo = (
            f"mend what keeps its new pods from being ready, or go back: {seen.kubectl} rollout undo deployment/{name}"
        )
        yield DoctorFinding(name, "problem", "its rollout does not come to an end; older pods serve on", todo)


def _by_hand(one: Object, expected: Expected, seen: Seen) -> Iterator[DoctorFinding]:
    """No replica is well where an autoscaler brings them back."""
    name = fields.name(one)
    to_zero = {
        fields.name(scaled, "spec", "scaleTargetRef", "name")
        for scaled in seen.of("scaledobjects")
        if not fields.number(scaled, "spec", "minReplicaCount")
    }
    if counts(one)[1] == 0 and name not in to_zero:
        kind = fields.text(one, "kind").lower()
        todo = f"{seen.kubectl} scale {kind}/{name} --replicas=1, or apply the overlay"
        # upkeep may be left out on purpose.
        level: Level = "problem" if name in expected.services else "warning"
        yield DoctorFinding(name, level, "it is scaled to zero, and nothing brings it back", todo)


def _jobs(seen: Seen) -> Iterator[DoctorFinding]:
    """The newest Job that makes streams; it is gone a day after it finished."""
    jobs = [one for one in seen.of("jobs") if fields.text(one, "metadata", "name").startswith(JOB)]
    if not jobs:
        return
    job = max(jobs, key=lambda one: fields.text(one, "metadata", "creationTimestamp"))
    name, failed = fields.name(job), fields.condition(job, "Failed")
    logs = f"{seen.kubectl} logs job/{name}"
    if failed.get("status") == "True":
        words = f"{fields.said(failed, 'reason', most=60)} {fields.said(failed, 'message')}".strip()
        todo = f"{logs}; mend it, {seen.kubectl} delete job {name}, and apply the overlay again"
        yield DoctorFinding(JOB, "problem", f"streams were not made: {words}", todo)
    elif not fields.number(job, "status", "succeeded") and (count := fields.number(job, "status", "failed")):
        detail = f"streams are not made yet, after {format_count(count, 'failed pod')}"
        yield DoctorFinding(JOB, "warning", detail, f"its log says why: {logs}")
    events = seen.events_of("Job", fields.text(job, "metadata", "name"))
    if messages := [fields.text(one, "message") for one in events if fields.text(one, "reason") == "FailedCreate"]:
        yield DoctorFinding(JOB, "problem", *refusals.explained(messages[0], seen))


def _references(seen: Seen) -> Iterator[DoctorFinding]:
    """Secrets and ConfigMaps that templates name and the namespace lacks."""
    users: dict[tuple[str, str], list[str]] = {}
    for one in seen.workloads():
        for reference in references(one):
            users.setdefault(reference, []).append(fields.name(one))
    for (kind, name), workloads in sorted(users.items()):
        plural = f"{kind.lower()}s"
        if seen.looked(plural) and name not in seen.names(plural):
            todo = (
                f"{SECRETS}; with cert-manager or External Secrets: look at their objects"
                if kind == "Secret"
                else "apply the overlay again: its ConfigMaps bear a digest in their names"
            )
            detail = f"it does not exist, and {fields.some(sorted(set(workloads)))} cannot start without it"
            yield DoctorFinding(f"{kind} {name}", "problem", detail, todo)


def references(workload: Object) -> set[tuple[str, str]]:
    """(kind, name) of each Secret and ConfigMap that pods need."""
    pod = fields.entries(workload, "spec", "template", "spec")
    found = []
    for volume in fields.rows(pod, "volumes"):
        for source in (volume, *fields.rows(volume, "projected", "sources")):
            found.append(("Secret", source.get("secret"), "secretName" if source is volume else "name"))
            found.append(("ConfigMap", source.get("configMap"), "name"))
    for container in (*fields.rows(pod, "initContainers"), *fields.rows(pod, "containers")):
        for source in fields.rows(container, "envFrom"):
            found += [("Secret", source.get("secretRef"), "name"), ("ConfigMap", source.get("configMapRef"), "name")]
        for variable in fields.rows(container, "env"):
            value = fields.at(variable, "valueFrom")
            found += [("Secret", fields.at(value, "secretKeyRef"), "name")]
            found += [("ConfigMap", fields.at(value, "configMapKeyRef"), "name")]
    return {
        (kind, fields.name(source, key))
        for kind, source, key in found
        if source and fields.at(source, "optional") is not True
    }


def versions(seen: Seen, expected: Expected) -> Iterator[DoctorFinding]:
    """Images that differ: of pods from their workload, of one tag, of one tag from the others', of a promoted set."""
    tags: dict[str, str] = {}
    for one in seen.workloads():
        name, image = fields.name(one), image_of(fields.at(one, "spec", "template"))
        pods = [pod for pod in seen.pods() if fields.workload_of(pod) == name and not _leaves(pod)]
        older = [fields.name(pod) for pod in pods if image_of(pod) != image]
        if older:
            todo = f"a rollout ends by itself: {seen.kubectl} rollout status {fields.text(one, 'kind').lower()}/{name}"
            yield DoctorFinding(name, "warning", f"{fields.some(older)} run another image than it names", todo)
        if image.endswith(PLACEHOLDER):
            yield DoctorFinding(name, "problem", "its image is a placeholder", "promote a release to this overlay")
        same = {_running_digest(pod) for pod in pods if image_of(pod) == image} - {""}
        if len(same) > 1 and "@" not in image:
            todo = (
                f"name images by digest, then {seen.kubectl} rollout restart {fields.text(one, 'kind').lower()}/{name}"
            )
            yield DoctorFinding(
                name, "problem", f"{fields.said(image)} stands for {len(same)} images on its nodes", todo
            )
        if "@" not in image and ":" in image.rpartition("/")[2]:
            tags[name] = image.rpartition(":")[2]
        yield from _promoted(name, image, seen, expected)
    yield from _other_tags(tags)


def _leaves(pod: Object) -> bool:
    ended = fields.text(pod, "status", "phase") in ("Succeeded", "Failed")
    return ended or bool(fields.text(pod, "metadata", "deletionTimestamp"))


def image_of(value: object) -> str:
    """The image of the first container of a pod or a template."""
    containers = fields.rows(value, "spec", "containers")
    return fields.text(containers[0], "image") if containers else ""


def _running_digest(pod: Object) -> str:
    statuses = fields.rows(pod, "status", "containerStatuses")
    return fields.text(statuses[0], "imageID").rpartition("@")[2] if statuses else ""


def _promoted(name: str, image: str, seen: Seen, expected: Expected) -> Iterator[DoctorFinding]:
    wanted = seen.promoted.get(expected.images.get(name, ""))
    if wanted and wanted != image:
        detail = f"it runs {_short(image)}, and the overlay has {_short(wanted)}"
        yield DoctorFinding(
            name, "problem", detail, "apply the overlay, component after component (docs/how-to/upgrade.md)"
        )


def _short(image: str) -> str:
    place, _, digest = image.partition("@sha256:")
    return f"{clean_line(place, 100)}@sha256:{clean_line(digest, SHOWN_DIGEST)}" if digest else clean_line(image, 160)


def _other_tags(tags: dict[str, str]) -> Iterator[DoctorFinding]:
    most = Counter(tags.values()).most_common(1)
    for name, tag in sorted(tags.items()):
        if tag != most[0][0]:
            shown = f"its image has the tag {clean_line(tag, 60)}, those of most others {clean_line(most[0][0], 60)}"
            todo = "N and N-1 go together, and no others do (docs/how-to/upgrade.md): bring all to one version"
            yield DoctorFinding(name, "warning", shown, todo)
