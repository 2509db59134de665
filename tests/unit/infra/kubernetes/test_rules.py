"""Each rule of the manifests can fail: one change per rule, and what is said of it."""

from collections.abc import Callable

import pytest

from bulkhead_infra.kubernetes import rules
from bulkhead_infra.kubernetes.__main__ import main
from bulkhead_infra.kubernetes.images import PLACEHOLDER
from tests.unit.infra.kubernetes.rendered import Object, named, overlay

Change = Callable[[list[Object]], None]


def _pod(found: list[Object], name: str = "worker", kind: str = "Deployment") -> Object:
    pod: Object = named(found, kind, name)["spec"]["template"]["spec"]
    return pod


def _container(found: list[Object], name: str = "worker", kind: str = "Deployment") -> Object:
    container: Object = _pod(found, name, kind)["containers"][0]
    return container


def _put(place: Callable[[list[Object]], Object], key: str, value: object) -> Change:
    return lambda found: place(found).__setitem__(key, value)


def _drop(place: Callable[[list[Object]], Object], key: str) -> Change:
    return lambda found: place(found).__delitem__(key)


def _without(kind: str, name: str) -> Change:
    return lambda found: found.remove(named(found, kind, name))


def _security(found: list[Object]) -> Object:
    context: Object = _container(found)["securityContext"]
    return context


def _pod_security(found: list[Object]) -> Object:
    context: Object = _pod(found)["securityContext"]
    return context


def _token(found: list[Object]) -> Object:
    volume = next(one for one in _pod(found)["volumes"] if one["name"] == "bus-token")
    token: Object = volume["projected"]["sources"][0]["serviceAccountToken"]
    return token


def _labels(found: list[Object]) -> Object:
    labels: Object = named(found, "Namespace", "bulkhead")["metadata"]["labels"]
    return labels


def _append(place: Callable[[list[Object]], list[Object]], value: Object) -> Change:
    return lambda found: place(found).append(value)


def _writer(found: list[Object]) -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]}
    found.append({"kind": "Role", "metadata": {"name": "writer"}, "rules": [rule]})


CASES: dict[str, tuple[str, Change, str]] = {
    "latest": ("tagged", _put(_container, "image", "bulkhead/worker:latest"), "worker"),
    "no tag": ("tagged", _put(_container, "image", "registry.example.org:5000/worker"), "worker"),
    "a tag in production": ("by-digest", _put(_container, "image", "bulkhead/worker:1.2"), "has no digest"),
    "placeholder": ("by-digest", _put(_container, "image", f"bulkhead/worker@{PLACEHOLDER}"), "placeholder"),
    "root": ("no-root", _put(_security, "runAsUser", 0), "runAsNonRoot"),
    "perhaps root": ("no-root", _drop(_pod_security, "runAsNonRoot"), "runAsNonRoot"),
    "writable root": ("contained", _drop(_security, "readOnlyRootFilesystem"), "readOnlyRootFilesystem"),
    "escalation": ("contained", _put(_security, "allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
    "a capability": ("contained", _put(_security, "capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}), "drop ALL"),
    "all capabilities": ("contained", _drop(_security, "capabilities"), "drop ALL"),
    "privileged": ("contained", _put(_security, "privileged", True), "privileged"),
    "no seccomp": ("seccomp", _drop(_pod_security, "seccompProfile"), "RuntimeDefault"),
    "unconfined": ("seccomp", _put(_security, "seccompProfile", {"type": "Unconfined"}), "RuntimeDefault"),
    "hostPath": (
        "no-host",
        _append(lambda f: _pod(f)["volumes"], {"name": "h", "hostPath": {"path": "/"}}),
        "hostPath",
    ),
    "hostNetwork": ("no-host", _put(_pod, "hostNetwork", True), "hostNetwork"),
    "hostPort": ("no-host", _append(lambda f: _container(f)["ports"], {"containerPort": 1, "hostPort": 1}), "hostPort"),
    "automount": ("no-api-token", _drop(_pod, "automountServiceAccountToken"), "automount"),
    "automount of the account": (
        "no-api-token",
        _drop(lambda f: named(f, "ServiceAccount", "worker"), "automountServiceAccountToken"),
        "automount",
    ),
    "a token for anybody": ("no-api-token", _drop(_token, "audience"), "audience"),
    "a token of the API server without a role": (
        "no-api-token",
        _without("ClusterRoleBinding", "bulkhead-identity"),
        "identity: the token in cluster",
    ),
    "a token for a day": ("no-api-token", _put(_token, "expirationSeconds", 86_400), "3600"),
    "another's account": ("own-account", _put(_pod, "serviceAccountName", "planner"), "another workload's"),
    "no account": ("own-account", _drop(_pod, "serviceAccountName"), "default"),
    "no readiness": ("probed", _drop(_container, "readinessProbe"), "readinessProbe"),
    "no requests": ("sized", _drop(lambda f: _container(f)["resources"], "requests"), "requests.cpu"),
    "no limit": ("sized", _drop(lambda f: _container(f)["resources"]["limits"], "memory"), "limits.memory"),
    "no budget": ("disruption-budget", _without("PodDisruptionBudget", "worker"), "PodDisruptionBudget"),
    "no priority": ("priority", _put(_pod, "priorityClassName", "high"), "high"),
    "no spread": ("spread", _drop(_pod, "topologySpreadConstraints"), "one machine"),
    "killed while draining": ("drained", _put(_pod, "terminationGracePeriodSeconds", 10), "killed"),
    "called while stopping": ("drained", _drop(lambda f: _container(f, "gateway"), "lifecycle"), "preStop"),
    "a ConfigMap that is not there": ("references", _without("ConfigMap", "bulkhead-policy"), "bulkhead-policy"),
    "a claim that is not there": ("references", _without("PersistentVolumeClaim", "upkeep"), "upkeep"),
    "a Secret": (
        "no-secrets",
        lambda f: f.append({"kind": "Secret", "metadata": {"name": "s"}, "stringData": {}}),
        "by name",
    ),
    "who writes Secrets": ("no-secrets", _writer, "write Secrets"),
    "an open namespace": ("walled", _put(_labels, "pod-security.kubernetes.io/enforce", "baseline"), "restricted"),
    "no default-deny": ("walled", _without("NetworkPolicy", "default-deny"), "missing"),
}


def _good() -> list[Object]:
    """Production with digests."""
    found = overlay("production")
    for _, _, container in rules.Manifests(found).containers:
        container["image"] = container["image"].replace("0" * 64, "1" * 64)
    assert rules.broken(found) == []
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_breach_is_told_with_its_object_and_its_remedy(case: str) -> None:
    rule, change, said = CASES[case]
    found = _good()
    change(found)
    breaches = [one for one in rules.broken(found) if one.rule == rule]
    assert breaches and any(said in str(one) for one in breaches), [str(one) for one in rules.broken(found)]


def test_each_rule_has_a_breach() -> None:
    assert {rule for rule, _, _ in CASES.values()} == set(rules.RULES)


def test_the_command_says_which_rule_is_broken(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    from tests.paths import ROOT

    assert main(["check", str(ROOT / "infra/kubernetes/base/worker.yaml"), "--unpromoted"]) == 1
    said = capsys.readouterr().out
    assert "Deployment worker: image bulkhead/worker is whatever comes" in said and "[tagged]" in said
