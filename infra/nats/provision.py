"""Makes the streams and durables, under the provisioner's identity. Doing it again changes nothing.

In: an address, the provisioner's key, a Layout. Out: what was made or changed; ProvisionError when something that
exists disagrees and cannot be changed. Raw API requests: nats-py's models lack some of the fields.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nats import errors
from nats.aio.client import Client

from infra.identity.policy import PROVISIONER
from infra.identity.rights import API, inbox_prefix

from .streams import Config, Layout, durables, streams

TIMEOUT_S = 10.0
STREAM_EXISTS = 10058
STREAM_NOT_FOUND = 10059


class ProvisionError(Exception):
    """The broker's streams cannot be what they should be; says which and what to do."""


@dataclass(slots=True)
class Report:
    """Names of what was made and what was changed; everything else was as it should be."""

    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


async def provision(url: str, nkey_seed: str, layout: Layout | None = None) -> Report:
    """Make everything. Raises ProvisionError."""
    wanted = layout or Layout()
    client, trouble = Client(), asyncio.get_running_loop().create_future()

    async def failed(error: Exception) -> None:
        if not trouble.done() and "permissions violation" in str(error).lower():
            trouble.set_result(error)

    try:
        await client.connect(
            url,
            name=PROVISIONER,
            nkeys_seed_str=nkey_seed,
            inbox_prefix=inbox_prefix(PROVISIONER),
            error_cb=failed,
            allow_reconnect=False,
            connect_timeout=5,
        )
    except (errors.Error, OSError) as error:
        raise ProvisionError(f"cannot reach the broker at {url} as provisioner: {error}; is it running?") from error
    try:
        return await _Provisioner(client, wanted).run()
    except (errors.Error, OSError) as error:
        said = str(trouble.result()) if trouble.done() else f"{type(error).__name__} {error}"
        raise ProvisionError(f"the broker at {url} did not answer: {said}; see its log, then start again") from error
    finally:
        await client.close()


class _Provisioner:
    def __init__(self, client: Client, layout: Layout) -> None:
        self._client = client
        self._layout = layout
        self._report = Report()

    async def run(self) -> Report:
        configs = streams(self._layout)
        derived = [one for one in configs if "sources" in one]
        await asyncio.gather(*(self._stream(one) for one in configs if "sources" not in one))
        await asyncio.gather(*(self._stream(one) for one in derived if "subjects" in one))
        await asyncio.gather(*(self._stream(one) for one in derived if "subjects" not in one))
        await asyncio.gather(*(self._durables(name) for name in {name for name, _ in durables(self._layout)}))
        return self._report

    async def _stream(self, config: Config) -> None:
        name = config["name"]
        try:
            found = await self._ask(f"STREAM.INFO.{name}", {})
        except _Refused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise ProvisionError(f"stream {name}: {refused}; see the broker's log") from refused
            await self._make(name, f"STREAM.CREATE.{name}", config)
            self._report.made.append(name)
            return
        differences = _differences(config, found["config"])
        if not differences:
            return
        try:
            await self._ask(f"STREAM.UPDATE.{name}", found["config"] | config)
        except _Refused as refused:
            raise ProvisionError(
                f"stream {name} exists with other settings that cannot be changed: {'; '.join(differences)} "
                f"({refused}); start the version that made it, or move its data away and let it be made anew"
            ) from refused
        self._report.changed.append(f"{name}: {'; '.join(differences)}")

    async def _durables(self, stream: str) -> None:
        wanted = {one["name"]: one for name, one in durables(self._layout) if name == stream}
        existing = set((await self._ask(f"CONSUMER.NAMES.{stream}", {})).get("consumers") or ())
        service = next(iter(wanted)).rpartition("-")[0]
        before = {one for one in existing if one.rpartition("-")[0] == service}
        if before and before != set(wanted):
            # A durable that starts now would be handed the whole inbox again, one that goes would strand messages.
            raise ProvisionError(
                f"{stream} has {len(before)} shard(s) and {len(wanted)} are wanted; start it with {len(before)}, or "
                "drain the service and remove its durables by hand before the number is changed"
            )
        for name, config in wanted.items():
            await self._durable(stream, name, config, name in existing)

    async def _durable(self, stream: str, name: str, config: Config, exists: bool) -> None:
        request = {"stream_name": stream, "config": config}
        if not exists:
            await self._make(f"{stream}/{name}", f"CONSUMER.CREATE.{stream}.{name}", request)
            self._report.made.append(f"{stream}/{name}")
            return
        found = await self._ask(f"CONSUMER.INFO.{stream}.{name}", {})
        differences = _differences(config, found["config"])
        if not differences:
            return
        try:
            await self._ask(f"CONSUMER.CREATE.{stream}.{name}", request)
        except _Refused as refused:
            raise ProvisionError(
                f"durable {name} of {stream} exists with other settings that cannot be changed: "
                f"{'; '.join(differences)} ({refused}); start the version that made it"
            ) from refused
        self._report.changed.append(f"{stream}/{name}: {'; '.join(differences)}")

    async def _make(self, what: str, request: str, body: Mapping[str, Any]) -> None:
        try:
            await self._ask(request, body)
        except _Refused as refused:
            raise ProvisionError(f"{what} cannot be made: {refused}; see the broker's log") from refused

    async def _ask(self, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
        message = await self._client.request(API + request, json.dumps(body).encode(), timeout=TIMEOUT_S)
        answer: dict[str, Any] = json.loads(message.data)
        if "error" in answer:
            error = answer["error"]
            raise _Refused(int(error.get("err_code", 0)), str(error.get("description", "no reason given")))
        return answer


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Where `found` disagrees. The broker leaves out what is empty, and adds to objects."""
    return [
        f"{key} is {json.dumps(found.get(key))}, should be {json.dumps(value)}"
        for key, value in wanted.items()
        if not _same(value, found.get(key))
    ]


def _same(wanted: Any, found: Any) -> bool:
    if found is None:
        return wanted in (None, False, 0, "", [], {})
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_same(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, wanted, found))
    return bool(wanted == found)
