"""Readings of a real mesh, as KEDA and the metrics-server take them: the broker's /jsz, /metrics and CPU of replicas.

In: a LocalMesh. Out: one `Readings` per look, from which every trigger is answered: KEDA asks once per trigger, which
gives the same. Addresses of the cluster in a trigger's metadata stand for the mesh on this machine.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from bulkhead_infra.kubernetes.chart import kube_name
from bulkhead_infra.local.supervisor import LocalMesh

ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Readings:
    """See keda.Sources. jsz, loads and cores: by account; by name in Kubernetes and metric; by name in Kubernetes."""

    jsz: Mapping[str, Any]
    loads: Mapping[str, Sequence[Mapping[str, float]]]
    cores: Mapping[str, Sequence[float]]

    def lag(self, metadata: Mapping[str, str]) -> float:
        account = next(one for one in self.jsz["account_details"] if one["name"] == metadata["account"])
        stream = next(one for one in account["stream_detail"] if one["name"] == metadata["stream"])
        durable = next(one for one in stream["consumer_detail"] if one["name"] == metadata["consumer"])
        return float(durable["num_pending"] + durable["num_ack_pending"])

    def load(self, metadata: Mapping[str, str]) -> float:
        assert metadata["aggregationType"] == "sum" and metadata["format"] == "prometheus"
        service = (urlsplit(metadata["url"]).hostname or "").partition(".")[0].removesuffix("-load")
        if not (answers := self.loads.get(service)):
            raise LookupError(f"no replica of {service} answers")
        return sum(one[metadata["valueLocation"]] for one in answers)

    def cpu(self, target: str) -> Sequence[float]:
        return self.cores.get(target, ())


class Reader:
    """Reads, and remembers the CPU seconds of the look before."""

    def __init__(self, mesh: LocalMesh) -> None:
        self._mesh = mesh
        self._http = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False)
        self._used: dict[int, tuple[float, float]] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, services: Sequence[str]) -> Readings:
        """Everything of this moment. services: by their own names."""
        wanted = {"acc": "MESH", "consumers": "true", "config": "true"}
        told = await self._http.get(f"{self._mesh.monitor_url}/jsz", params=wanted)
        loads = await asyncio.gather(*(self._loads(name) for name in services))
        named = [kube_name(name) for name in services]
        cores = {kube_name(name): self._cores(name) for name in services}
        return Readings(told.json(), dict(zip(named, loads, strict=True)), cores)

    def ready(self, service: str) -> list[str]:
        """Names of the ready replicas."""
        return [
            name
            for name, unit in self._mesh.units.items()
            if name.rpartition("-")[0] == service and unit.state == "ready"
        ]

    async def _loads(self, service: str) -> list[Mapping[str, float]]:
        found = await asyncio.gather(*(self._metrics(name) for name in self.ready(service)))
        return [one for one in found if one]

    async def _metrics(self, replica: str) -> Mapping[str, float]:
        """Values without labels; nothing of a replica that does not answer: KEDA leaves it out."""
        try:
            port = json.loads((self._mesh.directory / "run" / f"{replica}.json").read_text())["port"]
            answer = await self._http.get(f"http://127.0.0.1:{port}/metrics")
        except (OSError, httpx.HTTPError):
            return {}
        return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", answer.text, re.MULTILINE)}

    def _cores(self, service: str) -> list[float]:
        """Cores that each ready replica has used since the last look; those seen for the first time are not known."""
        found = []
        for name in self.ready(service):
            pid = self._mesh.units[name].pid
            try:
                used = sum(psutil.Process(pid).cpu_times()[:4])
            except psutil.Error:
                continue
            now = time.monotonic()
            before = self._used.get(pid or 0)
            self._used[pid or 0] = now, used
            if before is not None and now > before[0]:
                found.append((used - before[1]) / (now - before[0]))
        return found
