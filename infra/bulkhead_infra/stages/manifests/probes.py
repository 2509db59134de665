"""One look of a probe, as a kubelet asks.

In: a probe, the pod's address, its container. Out: "" for a success, else what was said.
"""

import asyncio

from bulkhead_infra.processes.http import get_url
from bulkhead_infra.stages.manifests.pods import Probe
from bulkhead_infra.stages.testcontainers_stack import Box

SAID_CHARS = 300


async def look(probe: Probe, address: str, box: Box) -> str:
    """See the module."""
    match probe.ask:
        case "http":
            return await _http(probe, address)
        case "tcp":
            return await _tcp(probe, address)
        case _:
            return await _exec(probe, box)


async def _http(probe: Probe, address: str) -> str:
    url = f"http://{address}:{probe.port}{probe.path}"
    try:
        status, body = await get_url(url, probe.timeout_s)
    except OSError as error:
        return f"no answer from {url}: {error}"
    said = body.decode("utf-8", "replace")[:SAID_CHARS]
    return "" if 200 <= status < 400 else f"{url} answers {status}: {said}"


async def _tcp(probe: Probe, address: str) -> str:
    try:
        async with asyncio.timeout(probe.timeout_s):
            _, writer = await asyncio.open_connection(address, probe.port)
    except (OSError, TimeoutError) as error:
        return f"{address}:{probe.port} takes no connection: {error or type(error).__name__}"
    writer.close()
    return ""


async def _exec(probe: Probe, box: Box) -> str:
    try:
        async with asyncio.timeout(probe.timeout_s):
            return (await box.fails(*probe.command))[:SAID_CHARS]
    except TimeoutError:
        return f"{' '.join(probe.command)} has not ended within {probe.timeout_s:g} s"
