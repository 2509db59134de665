"""`bulkhead doctor --cluster`: five checks of a mesh in Kubernetes, of what kubectl reads in one namespace.

In: a namespace, a context of the kubeconfig. Out: findings on pods, replicas, images, Secrets with certificates, and
autoscalers. Requests go by `kubectl get --raw`, which can only read; no Secret is asked for. Whatever the cluster
says is text of others: bounded, on one line, and no name of another form gets into a command that somebody pastes.
"""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.output import CommandError, Exit

TIMEOUT_S, EXTRA_S = 10, 5.0
"""Of a request; and beyond it, for the program of a login, before both are killed."""
MAX_ITEMS, MAX_FINDINGS, MAX_TEXT_CHARS = 1000, 40, 300
MANY_RESTARTS, RECENT, RENEWED_BEFORE = 3, timedelta(hours=1), timedelta(days=14)
SETTINGS_CODES = (2, 78)
"""Exit codes of a service that cannot work with its settings."""
WORKLOADS = ("deployments", "statefulsets")
LISTS = {
    "pods": "api/v1",
    "events": "api/v1",
    **dict.fromkeys(WORKLOADS, "apis/apps/v1"),
    "horizontalpodautoscalers": "apis/autoscaling/v2",
    "scaledobjects": "apis/keda.sh/v1alpha1",
    "certificates": "apis/cert-manager.io/v1",
}
OPTIONAL = ("scaledobjects", "certificates")
"""A cluster without KEDA or cert-manager does not know them."""
NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
MISSING = re.compile(r'((?:secret|configmap) "[a-z0-9.-]+") not found')
SECRETS = "python -m bulkhead_infra.kubernetes secrets KEYS | kubectl -n NAMESPACE apply -f -; or wait for cert-manager"
REMEDIES = {
    r"not installed": "install kubectl 1.27 or newer; nothing else is needed here",
    r"logged in|getting credentials|Unauthorized": "log in again: the login of this context is not accepted",
    r"Forbidden": "ask for the right to list it: the role `view` in this namespace has most of them",
    r"localhost:8080|does not exist|config": "name a context: `kubectl config get-contexts` lists them (KUBECONFIG)",
    r"onnect|refused|no such host|did not end|imeout": "is the cluster up, and may this machine reach it (VPN, proxy)?",
    r"": "try again; kubectl's words stand before this",
}
Object = Mapping[str, Any]
Lists = Mapping[str, Sequence[Object]]


class KubectlFailed(Exception):
    """Failure to get an answer, in kubectl's words."""


async def examine_cluster(namespace: str, context: str = "", timeout_s: int = TIMEOUT_S) -> list[DoctorFinding]:
    """All findings, problems first where there are more than MAX_FINDINGS. Raises CommandError for no namespace."""
    if not NAME.fullmatch(namespace) or len(namespace) > 63:
        raise CommandError(Exit.USAGE, f"--namespace {namespace[:80]!r} is no name", "write a-z, 0-9 and dashes")
    paths = [f"/{group}/namespaces/{namespace}/{kind}" for kind, group in LISTS.items()]
    answers = await asyncio.gather(*(_read_list(path, context, timeout_s) for path in paths), return_exceptions=True)
    lists, findings = dict[str, list[Object]](), list[DoctorFinding]()
    for kind, answer in zip(LISTS, answers, strict=True):
        if isinstance(answer, KubectlFailed):
            why = str(answer)
            todo = next(todo for words, todo in REMEDIES.items() if re.search(words, why))
            if kind == "pods":
                return [DoctorFinding("cluster", "problem", why, todo)]
            if kind not in OPTIONAL or "NotFound" not in why:
                findings.append(DoctorFinding(kind, "warning", f"not looked at: {why}", todo))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            lists[kind] = answer
    findings += judge_lists(lists, f"kubectl -n {namespace}", datetime.now(UTC))
    if len(findings) > MAX_FINDINGS:
        findings.sort(key=lambda finding: finding.level != "problem")
        more = f"{len(findings) - MAX_FINDINGS} more findings"
        findings = [
            *findings[:MAX_FINDINGS],
            DoctorFinding("more", "warning", more, "mend these first, then look again"),
        ]
    return findings


async def _read_list(path: str, context: str, timeout_s: int) -> list[Object]:
    """Items of a list, at most MAX_ITEMS. Raises KubectlFailed."""
    words = ["get", "--raw", f"{path}?limit={MAX_ITEMS}", f"--request-timeout={timeout_s}s"]
    words += [f"--context={context}"] if context else []
    null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    try:
        # A session of its own: the program of a login is ended with it.
        process = await asyncio.create_subprocess_exec(
            "kubectl", *words, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise KubectlFailed("kubectl is not installed") from error
    try:
        text, errors = await asyncio.wait_for(process.communicate(), timeout_s + EXTRA_S)
    except TimeoutError as error:
        raise KubectlFailed(f"kubectl did not end within {timeout_s + EXTRA_S:g} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        # client-go logs its attempts before the error (`E1123 15:20:00.000000 ...`).
        lines = [line for line in errors.decode("utf-8", "replace").splitlines() if not re.match(r"[EWI]\d{4} ", line)]
        raise KubectlFailed(clean_line(" ".join(lines), MAX_TEXT_CHARS) or "kubectl failed and said nothing")
    try:
        return _rows(json.loads(text), "items")
    except ValueError as error:
        raise KubectlFailed(f"{path} was answered with something else than JSON") from error


def judge_lists(lists: Lists, kubectl: str, now: datetime) -> list[DoctorFinding]:
    """Findings of each check, or that it holds, where all lists were read. Pure. kubectl: the begin of commands."""
    pods, workloads = lists.get("pods", ()), _workloads(lists)
    if not pods and not workloads:
        todo = "install the chart (docs/how-to/kubernetes.md), or name another namespace with --namespace"
        return [DoctorFinding("pods", "problem", "nothing runs in this namespace", todo)]
    checks: Mapping[str, tuple[str, Callable[[Lists, str, datetime], Iterator[DoctorFinding]]]] = {
        "pods": (f"{len(pods)} run as they should", _judge_pods),
        "replicas": (f"all of {len(workloads)} workloads are available", _judge_replicas),
        "images": ("pods of one workload run one image", _judge_images),
        "secrets": ("no pod waits for one, and no certificate ends", _judge_secrets),
        "autoscalers": ("none is stuck or at its maximum", _judge_autoscalers),
    }
    findings, whole = list[DoctorFinding](), LISTS.keys() <= {*lists, *OPTIONAL}
    for name, (holds, judge) in checks.items():
        findings += list(judge(lists, kubectl, now)) or ([DoctorFinding(name, "ok", holds)] if whole else [])
    return findings


def _judge_pods(lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    """Pods that are not ready or start again and again; several of a workload with one trouble are one finding."""
    troubles = [trouble for pod in lists.get("pods", ()) for trouble in _pod_troubles(pod, lists, kubectl, now)]
    counts = Counter((trouble.what, trouble.detail) for trouble in troubles)
    for trouble in {(trouble.what, trouble.detail): trouble for trouble in troubles}.values():
        count = counts[trouble.what, trouble.detail]
        detail = f"{trouble.detail} ({count} pods)" if count > 1 else trouble.detail
        yield DoctorFinding(trouble.what, trouble.level, detail, trouble.todo)


def _pod_troubles(pod: Object, lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    name, workload, phase = _name(pod), _workload(pod), _text(pod, "status", "phase")
    describe, logs = f"{kubectl} describe pod {name}", f"{kubectl} logs {name}"
    if phase == "Succeeded" or _at(pod, "metadata", "deletionTimestamp"):
        return
    if phase == "Failed":
        yield DoctorFinding(workload, "warning", f"a pod ended: {_text(pod, 'status', 'reason') or phase}", logs)
    elif (scheduled := _condition(pod, "PodScheduled")).get("status") == "False":
        todo = f"add a node or room on one, or bind its claim: {describe}"
        yield DoctorFinding(workload, "problem", f"no node takes its pod: {_text(scheduled, 'message')}", todo)
    for status in _statuses(pod) if phase != "Failed" else ():
        waiting, words = _text(status, "state", "waiting", "reason"), _text(status, "state", "waiting", "message")
        ended = _at(status, "state", "terminated") or _at(status, "lastState", "terminated") or {}
        restarts, code, reason = _at(status, "restartCount") or 0, _at(ended, "exitCode"), _text(ended, "reason")
        detail, todo = f"it ended by {reason or 'itself'} (exit code {code})", f"its log says why: {logs} --previous"
        if reason == "OOMKilled":
            todo = f"raise `memory` in your values; what it did: {logs} --previous"
        elif code in SETTINGS_CODES:
            detail += ", for settings that cannot work"
            todo = f"correct the setting, Secret or ConfigMap that its last lines name: {logs} --previous"
        if waiting == "CrashLoopBackOff" or _at(status, "state", "terminated", "exitCode"):
            yield DoctorFinding(workload, "problem", f"{waiting} after {restarts} restarts; {detail}".strip(), todo)
        elif "Image" in waiting:
            todo = f"is it in the registry (all zeros: promote one; `dev`: in the node), does the login fit? {describe}"
            yield DoctorFinding(workload, "problem", f"{waiting}: {words or _text(status, 'image')}", todo)
        elif waiting and waiting not in ("ContainerCreating", "PodInitializing", "CreateContainerConfigError"):
            yield DoctorFinding(workload, "problem", f"{waiting}: {words}", f"its events say more: {describe}")
        elif _at(status, "state", "running") is not None and status.get("ready") is not True:
            if status.get("started") is not True:
                yield DoctorFinding(workload, "warning", "it is starting", f"what it waits for: {logs}")
            else:
                words = next(_event_texts(lists, name, "Unhealthy"), "its readiness probe fails")
                yield DoctorFinding(
                    workload, "problem", f"it runs and is not ready: {words}", f"its log says why: {logs}"
                )
        elif restarts >= MANY_RESTARTS and timedelta() < now - _moment(ended, "finishedAt") < RECENT:
            yield DoctorFinding(workload, "warning", f"it runs after {restarts} restarts; {detail}", todo)


def _judge_replicas(lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    """Deployments and StatefulSets with fewer available replicas than they want."""
    for workload in _workloads(lists):
        wanted, available = _at(workload, "spec", "replicas"), _at(workload, "status", "availableReplicas") or 0
        wanted, name, failure = 1 if wanted is None else wanted, _name(workload), _condition(workload, "ReplicaFailure")
        if available >= wanted:
            continue
        detail, todo = f"{available} of {wanted} replicas are available", "mend what is said of its pods"
        refusals = [_text(failure, "message")] if failure.get("status") == "True" else []
        if refusals := refusals or list(_event_texts(lists, name, "FailedCreate")):
            detail += f"; the API server refuses its pods: {refusals[0]}"
            todo = "change the quota, LimitRange or Pod Security level that it names, or your values"
        elif _text(_condition(workload, "Progressing"), "reason") == "ProgressDeadlineExceeded":
            detail += "; its rollout does not come to an end"
            todo += f", or go back: {kubectl} rollout undo deployment/{name}"
        yield DoctorFinding(name, "warning" if available else "problem", detail, todo)


def _judge_images(lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    """Pods of another image than their workload names, and one name that stands for several images."""
    for workload in _workloads(lists):
        name, image = _name(workload), _image(_at(workload, "spec", "template"))
        running = [pod for pod in lists.get("pods", ()) if _text(pod, "status", "phase") == "Running"]
        pods = [pod for pod in running if _workload(pod) == name]
        if others := [_name(pod) for pod in pods if _image(pod) != image]:
            todo = "a rollout ends by itself; else upgrade the chart (docs/how-to/upgrade.md)"
            yield DoctorFinding(name, "warning", f"{', '.join(others[:4])}: other images than {image}", todo)
        ids = [_text(_statuses(pod)[-1], "imageID") for pod in pods if _image(pod) == image and _statuses(pod)]
        if len(digests := Counter(filter(None, (image_id.rpartition("@")[2] for image_id in ids)))) > 1:
            counts = ", ".join(f"{count} of {digest[:19]}" for digest, count in digests.most_common(4))
            todo = "name images by digest (image.digests), upgrade the chart, and let the pods be made anew"
            yield DoctorFinding(name, "problem", f"{image} stands for {len(digests)} images: {counts}", todo)


def _judge_secrets(lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    """Secrets that pods wait for, by the words of the kubelet, and certificates of cert-manager."""
    waiting: dict[str, dict[str, None]] = {}
    for pod in (pod for pod in lists.get("pods", ()) if _text(pod, "status", "phase") == "Pending"):
        words = [_text(status, "state", "waiting", "message") for status in _statuses(pod)]
        for reference in MISSING.findall(" ".join([*words, *_event_texts(lists, _name(pod), "FailedMount")])):
            waiting.setdefault(reference, {})[_workload(pod)] = None
    for reference, names in waiting.items():
        detail = f"it does not exist, and {clean_line(', '.join(names), 160)} cannot start without it"
        yield DoctorFinding(
            reference, "problem", detail, SECRETS if "secret" in reference else "upgrade the chart again"
        )
    for certificate in lists.get("certificates", ()):
        name, ready = f"certificate {_name(certificate)}", _condition(certificate, "Ready")
        end, todo = _moment(certificate, "status", "notAfter"), f"does cert-manager run? {kubectl} describe {name}"
        if ready.get("status") != "True":
            yield DoctorFinding(name, "problem", f"it is not ready: {_text(ready, 'message')}", todo)
        elif end - now < RENEWED_BEFORE:
            yield DoctorFinding(
                name, "problem" if end <= now else "warning", f"it ends on {end:%Y-%m-%d}, not renewed", todo
            )


def _judge_autoscalers(lists: Lists, kubectl: str, now: datetime) -> Iterator[DoctorFinding]:
    """Autoscalers that cannot scale, have no metrics, or would go beyond their maximum."""
    for scaled in lists.get("scaledobjects", ()):
        name, ready = _name(scaled), _condition(scaled, "Ready")
        if ready.get("status") != "True":
            todo = f"does KEDA run, and may it reach the brokers? {kubectl} describe scaledobject {name}"
            yield DoctorFinding(
                f"autoscaler {name}", "problem", f"KEDA is not ready for it: {_text(ready, 'message')}", todo
            )
    for scaler in lists.get("horizontalpodautoscalers", ()):
        able, active, limited = map(_condition, [scaler] * 3, ("AbleToScale", "ScalingActive", "ScalingLimited"))
        name, todo = f"autoscaler {_name(scaler)}", f"do metrics come? {kubectl} describe hpa {_name(scaler)}"
        if able.get("status") == "False":
            yield DoctorFinding(name, "problem", f"it cannot scale: {_text(able, 'message')}", todo)
        elif active.get("status") == "False" and active.get("reason") != "ScalingDisabled":
            yield DoctorFinding(name, "problem", f"it has no metrics: {_text(active, 'message')}", todo)
        elif limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
            detail = f"it would run more than its {_at(scaler, 'spec', 'maxReplicas')} replicas"
            todo = "raise `scaling.max` in your values, or what it waits for: a provider, a tool, a disk"
            yield DoctorFinding(name, "warning", detail, todo)


def _at(value: Any, *path: str) -> Any:
    """The value at a path; None where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, *path: str) -> str:
    content = _at(value, *path)
    return clean_line(content, MAX_TEXT_CHARS) if isinstance(content, str) else ""


def _rows(value: Any, *path: str) -> list[Object]:
    content = _at(value, *path)
    return [row for row in content if isinstance(row, Mapping)] if isinstance(content, list) else []


def _name(value: Any, *path: str) -> str:
    """A name as Kubernetes has them, fit for a command that somebody pastes."""
    name = _text(value, *(path or ("metadata", "name")))
    return name if NAME.fullmatch(name) else "unreadable-name"


def _workload(pod: Object) -> str:
    return _name(pod, "metadata", "labels", "app.kubernetes.io/name")


def _workloads(lists: Lists) -> list[Object]:
    return [workload for kind in WORKLOADS for workload in lists.get(kind, ())]


def _image(value: Any) -> str:
    return next((_text(container, "image") for container in _rows(value, "spec", "containers")), "")


def _statuses(pod: Object) -> list[Object]:
    return [*_rows(pod, "status", "initContainerStatuses"), *_rows(pod, "status", "containerStatuses")]


def _condition(value: Object, kind: str) -> Object:
    return next((row for row in _rows(value, "status", "conditions") if row.get("type") == kind), {})


def _moment(value: Any, *path: str) -> datetime:
    """A time as the API server writes it; the end of all times where there is none."""
    with suppress(ValueError):
        return datetime.fromisoformat(_text(value, *path).replace("Z", "+00:00"))
    return datetime.max.replace(tzinfo=UTC)


def _event_texts(lists: Lists, name: str, reason: str) -> Iterator[str]:
    """Texts of events of an object or of what it made: a ReplicaSet has its Deployment's name with a digest."""
    for row in lists.get("events", ()):
        owner = _text(row, "involvedObject", "name")
        if _text(row, "reason") == reason and name in (owner, owner.rpartition("-")[0]):
            yield _text(row, "message")
