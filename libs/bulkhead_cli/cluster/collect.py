"""What a cluster says of a mesh: every list that a judge reads, gathered through kubectl.

In: a Kubectl, a namespace. Out: `Seen`; or one finding where nothing can be looked at at all. Values of Secrets and
ConfigMaps are never fetched: the API server prints tables of their names.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.cluster.kubectl import Kubectl, KubectlError
from bulkhead_cli.cluster.seen import ABSENT, FAILED, FORBIDDEN, Seen, Unread, Why
from bulkhead_cli.operate.finding import DoctorFinding

OWN: Mapping[str, str] = {
    "pods": "api/v1",
    "services": "api/v1",
    "persistentvolumeclaims": "api/v1",
    "resourcequotas": "api/v1",
    "limitranges": "api/v1",
    "events": "api/v1",
    "deployments": "apis/apps/v1",
    "statefulsets": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "horizontalpodautoscalers": "apis/autoscaling/v2",
    "scaledobjects": "apis/keda.sh/v1alpha1",
    "certificates": "apis/cert-manager.io/v1",
}
"""Lists of the namespace, with the groups that hold them."""
QUERIES: Mapping[str, str] = {"events": "&fieldSelector=type%3DWarning"}
NAMED = ("secrets", "configmaps")
METRICS = "/apis/metrics.k8s.io/v1beta1"

NOT_LOOKED = {
    "missing": "install kubectl 1.27 or newer; nothing else is needed here",
    "config": "name a kubeconfig with KUBECONFIG or --kubeconfig, and one of its contexts with --context: "
    "`kubectl config get-contexts` lists them",
    "unauthorized": "log in again: the token, certificate or login program of this context is not accepted",
    "unreachable": "is the cluster up, its address right, and may this machine reach it (VPN, proxy)?",
    "hung": "is the cluster up, and may this machine reach it (VPN, proxy)? Something takes connections and is silent",
}


class Unseen(Exception):
    """Nothing can be looked at; the finding says why."""

    def __init__(self, finding: DoctorFinding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


@dataclass
class _Gathered:
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)


async def collect(kubectl: Kubectl, namespace: str, promoted: Mapping[str, str] | None = None) -> Seen:
    """Everything that judges read. Raises Unseen."""
    try:
        address = await kubectl.server()
    except KubectlError as error:
        raise Unseen(_unseen("kubectl", error)) from error
    at = f"{clean_line(address, 200)}: " if address else ""
    gathered, own = _Gathered(), quote(namespace, safe="")
    try:
        server = await kubectl.get("/version")
        gathered.lists["namespace"] = [await _namespace(kubectl, own, gathered)]
    except KubectlError as error:
        raise Unseen(_unseen("cluster", error, at, namespace)) from error
    await asyncio.gather(
        *(_list(kubectl, kind, f"/{group}/namespaces/{own}/{kind}", gathered) for kind, group in OWN.items()),
        *(_names(kubectl, kind, namespace, gathered) for kind in NAMED),
        _list(kubectl, "nodes", "/api/v1/nodes", gathered),
        _metrics(kubectl, gathered),
    )
    return Seen(namespace, datetime.now(UTC), gathered.lists, gathered.unread, server, kubectl.options, promoted or {})


def _unseen(what: str, error: KubectlError, at: str = "", namespace: str = "") -> DoctorFinding:
    if error.kind == "absent":
        todo = "make it: kubectl apply -f infra/kubernetes/base/namespace.yaml; or name another one with --namespace"
        return DoctorFinding("namespace", "problem", f"{at}there is no namespace {clean_line(namespace, 63)}", todo)
    detail = f"{at}{clean_line(str(error), 300)}"
    return DoctorFinding(what, "problem", detail, NOT_LOOKED.get(error.kind, "try again; its words stand before this"))


async def _namespace(kubectl: Kubectl, own: str, gathered: _Gathered) -> dict[str, Any]:
    """Raises KubectlError but where only the look at the namespace itself is refused."""
    try:
        return await kubectl.get(f"/api/v1/namespaces/{own}")
    except KubectlError as error:
        if error.kind != "forbidden":
            raise
        gathered.unread["namespaces"] = Unread(FORBIDDEN)
        return {}


async def _list(kubectl: Kubectl, kind: str, path: str, gathered: _Gathered) -> None:
    try:
        page = await kubectl.items(path, QUERIES.get(kind, ""))
    except KubectlError as error:
        gathered.unread[kind] = _why(error)
        return
    gathered.lists[kind] = page.items
    if not page.whole:
        gathered.unread[kind] = Unread(FAILED, f"only the first {len(page.items)} of them")


async def _names(kubectl: Kubectl, kind: str, namespace: str, gathered: _Gathered) -> None:
    try:
        gathered.lists[kind] = [{"metadata": {"name": name}} for name in await kubectl.names(kind, namespace)]
    except KubectlError as error:
        gathered.unread[kind] = _why(error)


async def _metrics(kubectl: Kubectl, gathered: _Gathered) -> None:
    try:
        await kubectl.get(METRICS)
    except KubectlError as error:
        gathered.unread["metrics"] = _why(error)


def _why(error: KubectlError) -> Unread:
    why: Why = ABSENT if error.kind == "absent" else FORBIDDEN if error.kind == "forbidden" else FAILED
    return Unread(why, clean_line(str(error), 300))
