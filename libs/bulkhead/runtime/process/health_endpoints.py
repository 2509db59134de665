"""`/livez`, `/readyz`, `/startupz` and `/metrics` on a small port of their own; the first and third ask nobody else."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bulkhead.runtime.component import Pool
from bulkhead.telemetry import metrics, names, prometheus
from bulkhead.telemetry.prometheus import GaugeFamily

MAX_REQUEST_BYTES = 4096


class HealthServer:
    """Answers probes. `status` is asked at every probe and says why not; `pools` by whoever scales the service."""

    def __init__(
        self, status: Callable[[], Awaitable[dict[str, object]]], pools: Callable[[], Mapping[str, Pool]] = lambda: {}
    ) -> None:
        self._status, self._pools = status, pools
        self._server: asyncio.Server | None = None
        self._target: Path | None = None
        self._probe_tasks: set[asyncio.Task[None]] = set()
        self.started = False

    async def start(
        self, port: int, file: Path | None, host: str = "127.0.0.1", labels: Mapping[str, str] | None = None
    ) -> int:
        """Listen (0: any free port) and leave `{"port": n}` in `file`.

        labels: beside it `NAME.target.json` tells Prometheus (`file_sd_configs`) where this replica is, until it stops
        by itself: one that was killed stays a target, and is missed.
        """
        self._server = await asyncio.start_server(self._on_connection, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            _replace_file(file, {"port": bound})
            if labels is not None:
                self._target = file.with_suffix(".target.json")
                _replace_file(self._target, [{"targets": [f"{host}:{bound}"], "labels": dict(labels)}])
        return bound

    async def stop(self) -> None:
        """Stop listening; the last probe may get no answer."""
        if self._server is not None:
            self._server.close()
        if self._target is not None:
            self._target.unlink(missing_ok=True)
        for task in self._probe_tasks:
            task.cancel()
        # One that had not begun yet is cancelled outside of its `try`.
        await asyncio.gather(*self._probe_tasks, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: asyncio's own for a connection cannot be waited for, and logs its being cancelled as an error.
        task = asyncio.get_running_loop().create_task(self._serve_probe(reader, writer))
        self._probe_tasks.add(task)
        task.add_done_callback(self._probe_tasks.discard)

    async def _serve_probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await asyncio.wait_for(reader.readline(), 5))[:MAX_REQUEST_BYTES].split()
            path = line[1].decode("ascii", "replace") if len(line) > 1 else "/"
            if path == "/metrics":
                families = [*readiness_gauges(await self._status()), *pool_gauges(self._pools())]
                text = prometheus.render_exposition(families, metrics.collected_metrics()).encode()
                code, kind = 200, prometheus.CONTENT_TYPE
            else:
                code, body = await self._answer_probe(path)
                kind, text = b"application/json", json.dumps(body).encode()
            writer.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n" % (code, b"OK" if code == 200 else b"NO", kind, len(text)) + text
            )
            await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.CancelledError):
            pass  # A probe broke off: the next one is answered, or the process ends.
        finally:
            writer.close()

    async def _answer_probe(self, path: str) -> tuple[int, dict[str, object]]:
        if path == "/livez":
            return 200, {"live": True}
        if path == "/readyz":
            status = await self._status()
            return (200 if status["ready"] else 503), status
        if path == "/startupz":
            return (200 if self.started else 503), {"started": self.started}
        return 404, {"error": "no such path", "hint": "/livez /readyz /startupz /metrics"}


def readiness_gauges(status: Mapping[str, object]) -> list[GaugeFamily]:
    """Gauges that tell if one replica can work."""
    ready, degraded = float(bool(status["ready"])), float(bool(status.get("degraded")))
    return [
        GaugeFamily(names.READY, "1 when it can do its work, as /readyz says", "", {"": ready}),
        GaugeFamily(names.DEGRADED, "1 when it works, but not all of it; /readyz says what", "", {"": degraded}),
    ]


def pool_gauges(pools: Mapping[str, Pool]) -> list[GaugeFamily]:
    """Places of one replica."""
    load = max((pool.demand / pool.capacity for pool in pools.values()), default=0.0)
    capacities = {kind: pool.capacity for kind, pool in pools.items()}
    demands = {kind: pool.demand for kind, pool in pools.items()}
    return [
        GaugeFamily(
            names.LOAD, "Share of the places that are taken or waited for, of the fullest kind", "", {"": load}
        ),
        GaugeFamily(names.POOL_MOST, "Places, by kind", "kind", capacities),
        GaugeFamily(names.POOL_WANTED, "Places that are taken or waited for, by kind", "kind", demands),
    ]


def _replace_file(file: Path, value: object) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.replace(file)
