"""A mesh that a real Prometheus reads under the shipped rules, and the page that says what to do about an alert.

In: a directory. Out: alerts as Prometheus has them, and the commands of a section, run as a person would.
"""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from bulkhead.client import Task
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra import observability
from tests.e2e.fixtures.world import World
from tests.eventually import until
from tests.needs import need
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "how-to" / "runbooks.md").read_text()
FASTER = {
    # What stands for minutes in alerts.yaml, in seconds: thresholds and times are promtool's to try.
    r"for: \d+m": "for: 0s",
    r"\[(1h|10m|15m)\]": "[15s]",
    r"offset (1h|15m)": "offset 15s",
    r"> 1000$": "> 0",
    r"> 3600$": "> 0",
}
PLANTED = "xyzzy-4711-planted"
"""Content: no incident file may hold it."""
ENDS_WITH_1 = ("bulkhead doctor",)
"""A problem is what doctor was asked for."""


def commands(alert: str, **words: str) -> list[str]:
    """The commands of a section, in order; words: what its capitals stand for."""
    section = re.split(r"^## ", PAGE.split(f"## {alert}\n", 1)[1], flags=re.M)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    for name, value in words.items():
        lines = [re.sub(rf"\b{name}\b", value, line) for line in lines]
    assert lines, alert
    left = [line for line in lines if re.search(r"\b(TASK|ID|SERVICE|BREAKER)\b", line)]
    assert not left, f"nothing stands for the capitals of {left}"
    return lines


def plan(instruction: str, *tools: str) -> dict[str, Any]:
    step = {"id": "s1", "title": "Do it", "instruction": instruction, "inputs": [], "acceptance": "It is done."}
    return {"steps": [step | {"tools": list(tools)}]}


class Watched:
    """Prometheus beside a mesh. `.bulkhead` in `folder` is the mesh's directory, as the page takes it to be."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self._url = f"http://127.0.0.1:{free_port()}"
        self._http = httpx.AsyncClient(base_url=self._url, timeout=10)

    async def __aenter__(self) -> Self:
        need("prometheus")
        (self.folder / ".bulkhead").symlink_to(self.world.mesh.directory)
        for name in ("alerts.yaml", "prometheus.yaml"):
            text = observability.monitoring_files(self.world.mesh.directory)[name]
            for slow, fast in (FASTER if name == "alerts.yaml" else {r"15s": "1s"}).items():
                text = re.sub(slow, fast, text, flags=re.M)
            (self.folder / name).write_text(text)
        self._log = (self.folder / "prometheus.log").open("w")
        self._process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self._url.removeprefix('http://')}",
            stdout=self._log,
            stderr=self._log,
        )
        await until(self._ready, "Prometheus is ready", every_s=0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await self._process.wait()
        self._log.close()
        await self._http.aclose()

    async def _ready(self) -> bool:
        assert self._process.returncode is None, (self.folder / "prometheus.log").read_text()[-2000:]
        try:
            return (await self._http.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def submit(self, tenant: str, *what: str) -> Task:
        """A task of one step: its instruction, then its tools."""
        return await self.world.submit(tenant, f"Do {PLANTED}.", plan=plan(*what), check=False)

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Samples of an expression, now."""
        answer = (await self._http.get("/api/v1/query", params={"query": query})).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def alerts(self, name: str = "") -> list[dict[str, Any]]:
        """Alerts that fire."""
        found = (await self._http.get("/api/v1/alerts")).json()["data"]["alerts"]
        return [one for one in found if one["state"] == "firing" and name in ("", one["labels"]["alertname"])]

    async def fires(self, name: str, **labels: str) -> dict[str, Any]:
        """The alert with these labels."""

        async def there() -> list[dict[str, Any]]:
            return [one for one in await self.alerts(name) if labels.items() <= one["labels"].items()]

        found: dict[str, Any] = (await until(there, f"{name} fires", 60, 0.2))[0]
        assert found["annotations"]["runbook_url"].endswith(f"#{name.lower()}") and "<" not in str(found["annotations"])
        return found

    async def resolves(self, name: str) -> None:
        """It fires no more."""

        async def gone() -> bool:
            return not await self.alerts(name)

        await until(gone, f"{name} is over", 60, 0.2)

    async def follow(self, alert: str, **words: str) -> str:
        """Run a section's commands; what they said."""
        said = ""
        for line in commands(alert, **words):
            code, out = await self.run(line)
            assert code == 0 or (code == 1 and line.startswith(ENDS_WITH_1)), f"{line}: {code}\n{out}"
            said += f"$ {line}\n{out}"
        return said

    async def run(self, line: str) -> tuple[int, str]:
        """One command line in the folder of `.bulkhead`: exit code, and all that it said."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-o", "pipefail", "-c", line),
            cwd=self.folder,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode is not None
        return process.returncode, out.decode()
