"""Findings on what is around workloads: nodes, quotas, claims, budgets, policies, certificates, autoscaling, rights."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead_cli.cluster import fields
from bulkhead_cli.cluster.expected import expected
from bulkhead_cli.cluster.judge import judge
from bulkhead_cli.cluster.seen import Unread
from tests.unit.bulkhead_cli.cluster.healthy import LISTS, NODES, condition, container, event, lists, of_workload, seen
from tests.unit.bulkhead_cli.cluster.test_judge import down, named, only, waiting, wrong

CLEAN = "pods/x is \x1b[31mred\x1b[0m\r\nfake\u202e line\x00 "


# Nodes


def test_a_node_that_disappears_is_told_with_the_pods_that_hang_on_it() -> None:
    found = lists()
    lost = condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
    found["nodes"][0]["status"]["conditions"] = [lost]
    for pod in found["pods"]:
        if pod["spec"]["nodeName"] == NODES[0] and pod["status"]["phase"] == "Running":
            pod["metadata"]["deletionTimestamp"] = "2026-11-23T11:50:00Z"
    by_name = {one.what: one for one in wrong(found)}
    node = by_name[f"node {NODES[0]}"]
    assert node.level == "problem" and "Kubelet stopped posting" in node.detail and "15 pods" in node.detail
    broker = by_name["nats"]
    assert broker.level == "problem" and "nats-0 has been Terminating for 10 min" in broker.detail
    assert "delete pod nats-0 --force" in broker.todo and "off for good" in broker.todo


def test_a_node_that_was_removed_and_one_under_pressure() -> None:
    found = lists()
    del found["nodes"][0]
    assert "it is gone, with" in only(found).detail
    found = lists()
    found["nodes"][1]["status"]["conditions"].append(condition("DiskPressure", "True"))
    assert "DiskPressure" in only(found).detail
    found = lists()
    found["nodes"].append({"metadata": {"name": "other"}, "status": {"conditions": [condition("Ready", "False")]}})
    assert wrong(found) == [], "it bears no pod of the mesh"


def test_pods_that_are_going_or_went_in_time_are_well_and_evicted_ones_are_told() -> None:
    found = lists()
    pod = of_workload(found, "pods", "worker")[0]
    pod["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:10Z"
    assert wrong(found) == []
    del pod["metadata"]["deletionTimestamp"]
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    finding = only(found)
    assert finding.level == "warning" and "Evicted The node was low" in finding.detail


def test_a_pod_that_no_node_takes() -> None:
    found = lists()
    for pod in of_workload(found, "pods", "worker"):
        said = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")
        pod["status"] = {"phase": "Pending", "conditions": [said]}
        del pod["spec"]["nodeName"]
    down(found, "worker")
    finding = only(found)
    assert finding.what == "worker" and "Insufficient cpu" in finding.detail and "2 pods" in finding.detail


# Namespace, quotas, limits


def test_a_quota_that_is_used_up() -> None:
    found = lists()
    status = {"hard": {"limits.memory": "8Gi", "pods": "50"}, "used": {"limits.memory": "8192Mi", "pods": "49"}}
    found["resourcequotas"] = [{"metadata": {"name": "compute"}, "status": status}]
    finding = only(found)
    assert finding.what == "quota compute" and finding.detail == "used up: limits.memory (8192Mi used)"


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        ({"max": {"memory": "256Mi"}}, "nats (limits.memory 1024Mi, max 256Mi)"),
        ({"min": {"cpu": "300m"}}, "(requests.cpu 250m, min 300m)"),
        ({"type": "Pod", "min": {"cpu": "300m"}}, "(requests.cpu 250m, min 300m)"),
        ({"maxLimitRequestRatio": {"cpu": "3"}}, "(cpu limit to request ratio 4, most 3)"),
        ({"max": {"memory": "64Gi"}, "min": {"cpu": "1m"}, "maxLimitRequestRatio": {"cpu": "200"}}, ""),
        ({"type": "PersistentVolumeClaim", "max": {"memory": "1"}}, ""),
    ],
)
def test_a_limit_range_that_clashes_with_the_templates(bound: dict[str, Any], text: str) -> None:
    found = lists()
    found["limitranges"] = [{"metadata": {"name": "sizes"}, "spec": {"limits": [{"type": "Container", **bound}]}}]
    details = [one.detail for one in wrong(found)]
    assert (len(details) == 1 and "the next pods are refused" in details[0]) if text else details == []
    assert all(text in one for one in details) or "more" in details[0]


def test_a_namespace_that_goes_or_lacks_its_walls() -> None:
    found = lists()
    found["namespace"][0]["status"]["phase"] = "Terminating"
    assert "is being deleted" in only(found).detail
    found = lists()
    del found["namespace"][0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    finding = only(found)
    assert finding.level == "warning" and "enforces nothing" in finding.detail


@pytest.mark.parametrize(("minor", "wrong_ones"), [("29", 1), ("29+", 1), ("30", 0), ("", 0)])
def test_a_cluster_that_is_too_old(minor: str, wrong_ones: int) -> None:
    found = wrong(lists(), server={"major": "1", "minor": minor, "gitVersion": f"v1.{minor}"})
    assert len(found) == wrong_ones and all("preStop.sleep" in one.todo for one in found)


# Disks, budgets, Services


@pytest.mark.parametrize(("phase", "text"), [("Pending", "no storage class is set"), ("Lost", "its volume is gone")])
def test_a_claim_without_a_volume(phase: str, text: str) -> None:
    found = lists()
    named(found, "persistentvolumeclaims", "data-nats-1")["status"]["phase"] = phase
    said = "no persistent volumes available for this claim and no storage class is set"
    found["events"] = [event("PersistentVolumeClaim", "data-nats-1", "FailedBinding", said)]
    finding = only(found)
    assert finding.what == "claim data-nats-1" and finding.level == "problem" and text in finding.detail


def test_a_disruption_budget_that_lets_no_pod_go() -> None:
    found = lists()
    named(found, "poddisruptionbudgets", "worker")["status"].update({"disruptionsAllowed": 0, "desiredHealthy": 2})
    finding = only(found)
    assert (
        finding.level == "warning" and "no pod of 2 may be evicted" in finding.detail and "minAvailable" in finding.todo
    )


def test_a_service_without_an_endpoint_that_is_ready() -> None:
    found = lists()
    found["endpointslices"] = [
        one for one in found["endpointslices"] if not one["metadata"]["name"].startswith("gateway")
    ]
    finding = only(found)
    assert (finding.what, finding.level) == ("service gateway", "problem") and "selector" in finding.todo


def test_replicas_that_are_not_ready_for_no_reason_that_is_told() -> None:
    found = lists()
    named(found, "deployments", "worker")["status"]["readyReplicas"] = 1
    finding = only(found)
    assert finding.level == "warning" and finding.detail == "1 of 2 replicas are ready"


# Walls


@pytest.mark.parametrize(
    ("missing", "text"), [("default-deny", "call whatever they like"), ("dns", "refused"), ("bus-clients", "refused")]
)
def test_a_missing_network_policy(missing: str, text: str) -> None:
    found = lists()
    found["networkpolicies"].remove(named(found, "networkpolicies", missing))
    finding = only(found)
    assert finding.level == "problem" and missing in finding.detail and text in finding.detail


@pytest.mark.parametrize(
    ("status", "level", "text"),
    [
        ({"notAfter": "2026-12-10T00:00:00Z"}, "warning", "it ends on 2026-12-10"),
        ({"renewalTime": "2026-09-01T00:00:00Z"}, "warning", "was not renewed"),
        ({"notAfter": "2026-11-22T00:00:00Z"}, "problem", "it ended on 2026-11-22"),
        ({"notBefore": "2026-11-23T11:00:00Z"}, "warning", "nats-0, nats-1, nats-2 started before it was issued"),
        (
            {
                "conditions": [
                    condition("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist")
                ]
            },
            "problem",
            "Issuing certificate as Secret does not exist",
        ),
    ],
)
def test_a_certificate_near_its_end(status: dict[str, Any], level: str, text: str) -> None:
    found = lists()
    named(found, "certificates", "bulkhead-nats-tls")["status"].update(status)
    finding = only(found)
    assert finding.what == "certificate bulkhead-nats-tls" and finding.level == level and text in finding.detail


# Autoscaling


def test_no_keda_is_a_problem_only_where_the_overlay_wants_it() -> None:
    found, gone = lists(), {"scaledobjects": Unread("absent")}
    del found["scaledobjects"]
    assert "install KEDA" in only(found, unread=gone).todo
    found["networkpolicies"].remove(named(found, "networkpolicies", "keda-lag"))
    assert wrong(found, unread=gone) == []


@pytest.mark.parametrize(
    ("kind", "status", "level", "text"),
    [
        ("Ready", "False", "problem", "its ScaledObject is not ready: triggers are wrong"),
        ("Ready", "Unknown", "problem", "its ScaledObject is not ready"),
        ("Fallback", "True", "warning", "the fallback counts"),
        ("Paused", "True", "warning", "it is paused"),
    ],
)
def test_a_scaled_object_that_does_not_scale(kind: str, status: str, level: str, text: str) -> None:
    found = lists()
    conditions = named(found, "scaledobjects", "worker")["status"]["conditions"]
    conditions[:] = [one for one in conditions if one["type"] != kind]
    conditions.append(condition(kind, status, "ScaledObjectCheckFailed", "triggers are wrong"))
    finding = only(found)
    assert (finding.what, finding.level) == ("autoscaler of worker", level) and text in finding.detail


NO_METRICS = "unable to get metrics for resource cpu: the server could not find the requested resource"


@pytest.mark.parametrize(("unread", "text"), [(Unread("absent"), "is not installed"), (Unread("failed", "503"), "503")])
def test_missing_metrics_are_told_once(unread: Unread, text: str) -> None:
    found = lists()
    del found["metrics"]
    for one in found["horizontalpodautoscalers"]:
        one["status"]["conditions"][1] = condition("ScalingActive", "False", "FailedGetResourceMetric", NO_METRICS)
    finding = only(found, unread={"metrics": unread})
    assert finding.what == "metrics" and text in finding.detail and "metrics-server" in finding.todo
    found["horizontalpodautoscalers"] = []
    assert wrong(found, unread={"metrics": unread}) == [], "nobody asks for them"


@pytest.mark.parametrize(
    ("number", "said", "level"),
    [
        (0, condition("AbleToScale", "False", "FailedGetScale", "no scale"), "problem"),
        (1, condition("ScalingActive", "False", "FailedGetExternalMetric", "no lag"), "problem"),
        (2, condition("ScalingLimited", "True", "TooManyReplicas", "more"), "warning"),
    ],
)
def test_an_autoscaler_that_cannot(number: int, said: dict[str, Any], level: str) -> None:
    found = lists()
    named(found, "horizontalpodautoscalers", "keda-hpa-worker")["status"]["conditions"][number] = said
    finding = only(found)
    assert (finding.what, finding.level) == ("autoscaler of worker", level)


# Rights, and hostile words


def test_lists_that_are_refused_are_named_and_judged_as_unknown() -> None:
    found = lists()
    refused = {kind: Unread("forbidden") for kind in ("secrets", "nodes", "scaledobjects")}
    for kind in refused:
        del found[kind]
    finding = only(found, unread=refused)
    assert (finding.what, finding.level) == ("rights", "warning")
    assert "may not list nodes, scaledobjects, secrets" in finding.detail
    del found["pods"]
    assert wrong(found, unread=refused | {"pods": Unread("forbidden")})[0].level == "problem"


def test_a_list_that_did_not_come_is_told() -> None:
    found = lists()
    del found["services"]
    finding = only(found, unread={"services": Unread("failed", "kubectl did not end within 15 s")})
    assert finding.what == "services" and "did not end within 15 s" in finding.detail


def test_words_of_the_cluster_are_one_clean_bounded_line_and_names_are_safe_in_commands() -> None:
    found = lists()
    waiting(found, "worker", "CrashLoopBackOff", lastState={"terminated": {"exitCode": 1, "message": CLEAN * 900}})
    for pod in of_workload(found, "pods", "worker"):
        pod["metadata"]["name"] = "x; rm -rf ~"
    container(of_workload(found, "pods", "rag")[0]).update({"ready": False})
    for finding in wrong(found):
        text = f"{finding.what}{finding.detail}{finding.todo}"
        assert text.isprintable() and len(text) < 1_000 and "rm -rf" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EXPECTED = expected()


@settings(max_examples=50)
@given(st.data())
@pytest.mark.slow
def test_any_shape_of_an_answer_is_judged(data: st.DataObject) -> None:
    """One value of the healthy namespace is replaced by whatever JSON there is."""
    found = lists()
    kind = data.draw(st.sampled_from([name for name in LISTS if found[name]]))
    value: Any = data.draw(st.sampled_from(found[kind]))
    for _ in range(data.draw(st.integers(0, 8))):
        keys: list[Any] = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys)) if keys else None
        if key is None:
            break
        if not isinstance(value[key], dict | list) or data.draw(st.booleans()):
            value[key] = data.draw(JSON)
            break
        value = value[key]
    for finding in judge(seen(found), EXPECTED):
        assert f"{finding.what}{finding.detail}{finding.todo}".isprintable()


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("250m", 0.25),
        ("256Mi", 256 * 1024**2),
        ("1k", 1000.0),
        ("2", 2.0),
        (3, 3.0),
        ("1Gi", 1024**3),
        ("x", None),
        (True, None),
    ],
)
def test_quantities(text: object, amount: float | None) -> None:
    assert fields.quantity(text) == amount
