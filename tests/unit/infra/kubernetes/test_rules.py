"""The examples break no rule, and each rule can be broken: one change per case."""

from collections.abc import Callable

import pytest

from tests.unit.infra.kubernetes import rules
from tests.unit.infra.kubernetes.rendered import Object, installation, named

Change = Callable[[list[Object]], object]


@pytest.mark.parametrize("autoscaling", ["keda", "hpa"])
@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_installation_breaks_no_rule(name: str, autoscaling: str) -> None:
    assert rules.breaches(installation(name, autoscaling=autoscaling)) == []


def test_dev_breaks_no_rule_but_that_its_images_have_no_digest() -> None:
    assert {line.partition(":")[0] for line in rules.breaches(installation("dev"))} == {"by-digest"}


def _pod(objects: list[Object], name: str = "worker", kind: str = "Deployment") -> Object:
    pod: Object = named(objects, kind, name)["spec"]["template"]["spec"]
    return pod


def _row(objects: list[Object], name: str = "worker") -> Object:
    row: Object = _pod(objects, name)["containers"][0]
    return row


def _context(objects: list[Object]) -> Object:
    context: Object = _row(objects)["securityContext"]
    return context


def _token(objects: list[Object]) -> Object:
    [volume] = [volume for volume in _pod(objects)["volumes"] if volume["name"] == "bus-token"]
    token: Object = volume["projected"]["sources"][0]["serviceAccountToken"]
    return token


def _remove(kind: str, name: str) -> Change:
    return lambda objects: objects.remove(named(objects, kind, name))


def _add(kind: str) -> Change:
    return lambda objects: objects.append({"kind": kind, "metadata": {"name": "more"}})


CASES: dict[str, tuple[str, Change]] = {
    "a tag": ("by-digest", lambda f: _row(f).update(image="bulkhead/worker:1")),
    "root": ("confined", lambda f: _pod(f)["securityContext"].update(runAsNonRoot=False)),
    "any user": ("confined", lambda f: _pod(f)["securityContext"].pop("runAsUser")),
    "a writable root": ("confined", lambda f: _context(f).pop("readOnlyRootFilesystem")),
    "more rights": ("confined", lambda f: _context(f).update(allowPrivilegeEscalation=True)),
    "a capability": ("confined", lambda f: _context(f).update(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]})),
    "all calls": ("confined", lambda f: _pod(f)["securityContext"].pop("seccompProfile")),
    "the machine's network": ("no-host", lambda f: _pod(f).update(hostNetwork=True)),
    "a machine's folder": ("no-host", lambda f: _pod(f)["volumes"].append({"name": "a", "hostPath": {"path": "/"}})),
    "a machine's port": ("no-host", lambda f: _row(f)["ports"][0].update(hostPort=80)),
    "a token of the API server": ("no-api-token", lambda f: _pod(f).pop("automountServiceAccountToken")),
    "its account's": (
        "no-api-token",
        lambda f: named(f, "ServiceAccount", "worker").pop("automountServiceAccountToken"),
    ),
    "a token for anybody": ("no-api-token", lambda f: _token(f).pop("audience")),
    "a token for a day": ("no-api-token", lambda f: _token(f).update(expirationSeconds=86_400)),
    "a token without a role": ("no-api-token", _remove("ClusterRoleBinding", "bulkhead-identity")),
    "another's account": ("own-account", lambda f: _pod(f).update(serviceAccountName="planner")),
    "no account": ("own-account", lambda f: _pod(f).pop("serviceAccountName") and _pod(f).pop("volumes")),
    "no readiness": ("probed", lambda f: _row(f).pop("readinessProbe")),
    "no requests": ("sized", lambda f: _row(f)["resources"].pop("requests")),
    "no limit": ("sized", lambda f: _row(f)["resources"]["limits"].pop("memory")),
    "no budget": ("disrupted-one-by-one", _remove("PodDisruptionBudget", "worker")),
    "no priority": ("placed", lambda f: _pod(f).update(priorityClassName="high")),
    "no spread": ("placed", lambda f: _pod(f).pop("topologySpreadConstraints")),
    "killed while draining": ("drained", lambda f: _pod(f).update(terminationGracePeriodSeconds=10)),
    "called while stopping": ("drained", lambda f: _row(f, "gateway").pop("lifecycle")),
    "a ConfigMap that is not there": ("references", _remove("ConfigMap", "bulkhead-policy")),
    "a claim that is not there": ("references", _remove("PersistentVolumeClaim", "upkeep")),
    "a Secret": ("no-secrets", _add("Secret")),
    "a role": ("no-secrets", _add("ClusterRole")),
    "no default-deny": ("walled", _remove("NetworkPolicy", "default-deny")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_breach_is_found(case: str) -> None:
    rule, change = CASES[case]
    objects = installation("staging")
    change(objects)
    assert rule in {line.partition(":")[0] for line in rules.breaches(objects)}


def test_each_rule_has_a_breach() -> None:
    assert {rule for rule, _ in CASES.values()} == set(rules.RULES)
