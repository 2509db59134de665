"""Makes the streams and durables, under the provisioner's identity. Doing it again changes nothing.

In: an address, the provisioner's key, a Layout. Out: what was made or changed; ProvisionError when something that
exists disagrees and cannot be changed. Raw API requests: nats-py's models lack some of the fields.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nats import errors
from nats.aio.client import Client

from bulkhead.bus.jetstream.connection import tls_context
from bulkhead.bus.port import BusError
from bulkhead_contracts import bounds, subjects
from bulkhead_infra.identity.policy import PROVISIONER
from bulkhead_infra.identity.rights import API, inbox_prefix
from bulkhead_infra.nats.configuration import MAX_PAYLOAD_BYTES
from bulkhead_infra.nats.stream_sizes import GIB, StoreTooSmall
from bulkhead_infra.nats.streams import (
    FORMAT_STREAM,
    MIN_VERSION,
    STORE_FORMAT,
    Config,
    Layout,
    durable_configs,
    event_durable_configs,
    store_format_of,
    stream_configs,
)

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5
CLUSTER_TIMEOUT_S, PATIENCE_S, PAUSE_S = 2.0, 15.0, 0.2
"""A dead leader answers nobody; another one is there within seconds."""
RELOADING_S = 5.0
"""For a moment in the middle of reading its accounts a broker drops who is there, knows nobody, and answers nothing."""
STREAM_NOT_FOUND, NO_STORAGE = 10059, 10047
KEPT_PERCENT = 2
"""Of the store: so much more than their shares streams may keep, when another version divides it otherwise."""
NO_LEADER = (10008, 10009)
"""JetStream has none now; this stream or durable has none."""
BY_SEQUENCE = "by_start_sequence"


class ProvisionError(Exception):
    """The broker's streams cannot be what they should be; says which and what to do."""


@dataclass(slots=True)
class ProvisionReport:
    """Names of what was made and what was changed; kept: what is larger than it should be, in words, by name."""

    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartSequences:
    """With which sequence a durable that is made begins, and from which on a source of another stream is fetched."""

    durables: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)


class _ConnectionDropped(Exception):
    """There is no connection any more, or not yet: whatever was asked may have been done. Says what to do."""

    def __init__(self, text: str, patience_s: float = PATIENCE_S) -> None:
        super().__init__(text)
        self.patience_s = patience_s


class _RequestRefused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


async def provision(
    url: str,
    nkey_seed: str,
    layout: Layout | None = None,
    begin: "StartSequences | None" = None,
    ca_file: Path | None = None,
) -> ProvisionReport:
    """Make everything. begin: of a restore. ca_file: TLS. Raises ProvisionError.

    A broker that reads its accounts again drops connections, this one too: what was made stands, the rest is made over
    another one.
    """
    planned_layout = layout or Layout()
    try:
        stream_configs(planned_layout)
    except StoreTooSmall as error:
        raise ProvisionError(str(error)) from error
    report, loop = ProvisionReport(), asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            await _over_one_connection(
                url, nkey_seed, ca_file, partial(_Provisioner, planned_layout, begin or StartSequences(), report)
            )
            return report
        except _ConnectionDropped as dropped:
            if loop.time() > began + dropped.patience_s:
                raise ProvisionError(str(dropped)) from dropped
        await asyncio.sleep(PAUSE_S)


async def _over_one_connection(
    url: str, nkey_seed: str, ca_file: Path | None, provisioner: "Callable[[Client], _Provisioner]"
) -> None:
    """Raises ProvisionError, _ConnectionDropped."""
    client, loop = Client(), asyncio.get_running_loop()
    trouble, connection_closed = loop.create_future(), loop.create_future()

    async def on_error(error: Exception) -> None:
        if not trouble.done() and "permissions violation" in str(error).lower():
            trouble.set_result(error)

    async def on_closed() -> None:
        if not connection_closed.done():
            connection_closed.set_result(None)

    await _open_connection(client, url, nkey_seed, ca_file, on_error, on_closed)
    making = None
    try:
        _check_broker(client, url)
        making = asyncio.ensure_future(provisioner(client).run())
        # A request whose connection has ended would wait for its answer to the end of its time.
        await asyncio.wait({making, connection_closed}, return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            raise _ConnectionDropped(f"the broker at {url} hung up: {client.last_error}; see its log, then start again")
        await making
    except (errors.Error, OSError) as error:
        reason = str(trouble.result()) if trouble.done() else f"{type(error).__name__} {error}"
        kind = _ConnectionDropped if connection_closed.done() else ProvisionError
        raise kind(f"the broker at {url} did not answer: {reason}; see its log, then start again") from error
    finally:
        if making is not None:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        await client.close()


def connect_options(identity: str, nkey_seed: str, ca_file: Path | None) -> dict[str, Any]:
    """Options of nats-py for one connection under an identity, which does not come back by itself. Raises BusError."""
    tls = {"tls": tls_context(ca_file), "tls_handshake_first": True} if ca_file is not None else {}
    once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "connect_timeout": CONNECT_TIMEOUT_S}
    return {"name": identity, "nkeys_seed_str": nkey_seed, "inbox_prefix": inbox_prefix(identity), **once, **tls}


async def _open_connection(
    client: Client,
    url: str,
    nkey_seed: str,
    ca_file: Path | None,
    failed: Callable[[Exception], Awaitable[None]],
    closed: Callable[[], Awaitable[None]],
) -> None:
    """Raises ProvisionError; _ConnectionDropped where somebody answers and hangs up."""
    try:
        options = connect_options(PROVISIONER, nkey_seed, ca_file)
        await client.connect(url.split(","), error_cb=failed, closed_cb=closed, **options)
    except (errors.Error, OSError, BusError) as error:
        if "authorization" in str(error).lower():
            raise _ConnectionDropped(
                f"the broker at {url} does not know the keys of this mesh: include what `bulkhead render accounts` "
                "writes in its configuration, reload it, then start again",
                RELOADING_S,
            ) from error
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ProvisionError(
                f"the broker at {url} has a certificate of a CA that is not trusted here: name the CA's file in "
                "SSL_CERT_FILE, and write an address that stands in the certificate"
            ) from error
        kind = ProvisionError if isinstance(error, errors.NoServersError | BusError) else _ConnectionDropped
        raise kind(f"cannot reach the broker at {url} as provisioner: {error}; is it running?") from error


def _check_broker(client: Client, url: str) -> None:
    """Raises ProvisionError for a broker that cannot hold a mesh, whatever is asked of it."""
    info = client._server_info  # nats-py shows but parts of what the broker says of itself.
    if not info.get("auth_required"):
        way = "include what `bulkhead render accounts` writes in its configuration, and reload it"
        raise ProvisionError(f"the broker at {url} asks nobody for a key: no wall between services would stand; {way}")
    if not info.get("jetstream"):
        raise ProvisionError(f"the broker at {url} runs without JetStream; add a jetstream block to its configuration")
    version = client.connected_server_version
    if (version.major, version.minor) < MIN_VERSION:
        minimum = ".".join(map(str, MIN_VERSION))
        way = f"at least {minimum} is needed: upgrade it, its data can stay"
        raise ProvisionError(f"the broker at {url} is nats-server {version.major}.{version.minor}; {way}")
    if client.max_payload < bounds.MAX_STORED_BLOB_BYTES:
        raise ProvisionError(
            f"the broker at {url} takes messages of at most {client.max_payload} bytes and contents have up to "
            f"{bounds.MAX_STORED_BLOB_BYTES}; set max_payload to {MAX_PAYLOAD_BYTES} in its configuration and reload it"
        )


class _Provisioner:
    def __init__(self, layout: Layout, begin: StartSequences, report: ProvisionReport, client: Client) -> None:
        self._layout, self._begin, self._report, self._client = layout, begin, report, client
        self._over: dict[str, int] = {}

    async def run(self) -> None:
        await self._check_store_format()
        configs = [self._with_start_sequences(config) for config in stream_configs(self._layout)]
        await asyncio.gather(
            *(self._narrow_subjects(config) for config in configs if config.get("subjects") and "sources" in config)
        )
        derived = [config for config in configs if "sources" in config]
        await asyncio.gather(*(self._provision_stream(config) for config in configs if "sources" not in config))
        await asyncio.gather(*(self._provision_stream(config) for config in derived if "subjects" in config))
        await asyncio.gather(*(self._provision_stream(config) for config in derived if "subjects" not in config))
        await asyncio.gather(
            *(self._provision_durables(name) for name in {name for name, _ in durable_configs(self._layout)})
        )
        existing = await self._durable_names(subjects.EVENTS_STREAM)
        for durable in event_durable_configs(self._layout):
            await self._provision_event_durable(durable, durable["name"] in existing)

    async def _check_store_format(self) -> None:
        """Nothing is changed in a store that this version cannot read. Raises ProvisionError."""
        try:
            current = await self._request_api(f"STREAM.INFO.{FORMAT_STREAM}", {})
        except _RequestRefused:
            return  # There is none yet.
        if (stored := store_format_of(current["config"])) != STORE_FORMAT:
            raise ProvisionError(
                f"this store has format {stored} and this version of bulkhead reads format {STORE_FORMAT}: its tasks "
                "could be neither replayed nor ended. Start the version that made it, or begin with an empty store "
                "(on one machine another --data)"
            )

    def _with_start_sequences(self, config: Config) -> Config:
        first, sources = self._begin.sources, config.get("sources", ())
        if not any(first.get(source["name"], 1) > 1 for source in sources):
            return config
        begun = [source | {"opt_start_seq": max(1, first.get(source["name"], 1))} for source in sources]
        return config | {"sources": begun}

    async def _narrow_subjects(self, config: Config) -> None:
        """Take from a stream that is there the subjects that go to others: no two may hold one."""
        name = config["name"]
        try:
            current = (await self._request_api(f"STREAM.INFO.{name}", {}))["config"]
        except _RequestRefused:
            return  # There is none yet.
        if set(current.get("subjects") or ()) != set(config["subjects"]):
            changed, way = current | {"subjects": config["subjects"]}, "start the version that made it"
            await self._change_settings(f"stream {name}", f"STREAM.UPDATE.{name}", changed, ["subjects"], way)

    async def _provision_stream(self, config: Config) -> None:
        name, most = config["name"], config["max_bytes"]
        try:
            current = await self._request_api(f"STREAM.INFO.{name}", {})
        except _RequestRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise ProvisionError(f"stream {name}: {refused}; see the broker's log") from refused
            await self._create_resource(name, f"STREAM.CREATE.{name}", config)
            self._report.made.append(name)
            return
        if not self._layout.store_gib:
            # Nobody says how much disk there is now: what was said before stands.
            config = config | {"max_bytes": current["config"].get("max_bytes", most)}
        elif most < current["state"]["bytes"]:
            config = config | {"max_bytes": self._kept_bound(name, most, current)}
        config = _with_restored_sources(config, current["config"])
        wrong = list_differences(config, current["config"])
        if not wrong:
            return
        way = "start the version that made it, or move its data away and let it be made anew"
        await self._change_settings(f"stream {name}", f"STREAM.UPDATE.{name}", current["config"] | config, wrong, way)
        self._report.changed.append(f"{name}: {'; '.join(wrong)}")

    def _kept_bound(self, name: str, most: int, current: Mapping[str, Any]) -> int:
        """The bound of a stream that holds more than its share. Raises ProvisionError.

        Its old one, where a version has taken a little from it for others: it must not stand still for an upgrade.
        """
        stored_bytes, store = current["state"]["bytes"], self._layout.store_gib
        bound: int = current["config"].get("max_bytes", -1)
        way = "give more (--store-gib, in containers BULKHEAD_STORE_GIB)"
        self._over[name] = bound - most
        if bound > 0 and sum(self._over.values()) <= store * GIB * KEPT_PERCENT // 100:
            reason = f"it holds {stored_bytes / GIB:.2f}, and its share of {store} GiB is {most / GIB:.2f} now"
            self._report.kept[name] = f"{name} keeps its bound of {bound / GIB:.2f} GiB: {reason}; {way} when you can"
            return bound
        # A stream that drops its oldest would do so at once, and timers are among those.
        raise ProvisionError(
            f"stream {name} holds {stored_bytes / GIB:.1f} GiB, and of a store of {store} GiB it "
            f"would get {most / GIB:.1f}: "
            f"{way}, or purge ended tasks first (python -m bulkhead_infra.nats.purge; in containers `upkeep` does it, "
            "with a shorter BULKHEAD_RETENTION)"
        )

    async def _provision_durables(self, stream: str) -> None:
        configs = {config["name"]: config for name, config in durable_configs(self._layout) if name == stream}
        existing = await self._durable_names(stream)
        service = next(iter(configs)).rpartition("-")[0]
        before = {durable for durable in existing if durable.rpartition("-")[0] == service}
        if before != set(configs) and not await self._is_begun_by_this_layout(stream, before, configs):
            # A durable that starts now would be handed the whole inbox again, one that goes would strand messages.
            raise ProvisionError(
                f"{stream} has {len(before)} shard(s) and {len(configs)} are wanted; start it with {len(before)}, or "
                "drain the service and remove its durables by hand before the number is changed"
            )
        for name, config in configs.items():
            await self._provision_durable(stream, name, config, name in existing)

    async def _durable_names(self, stream: str) -> set[str]:
        return set((await self._request_api(f"CONSUMER.NAMES.{stream}", {})).get("consumers") or ())

    async def _is_begun_by_this_layout(self, stream: str, before: set[str], planned: Mapping[str, Config]) -> bool:
        """True when these are some of the wanted ones, made by somebody who did not get to the rest."""
        if not before <= set(planned):
            return False
        for name in before:
            current = await self._request_api(f"CONSUMER.INFO.{stream}.{name}", {})
            if current["config"].get("filter_subjects") != planned[name].get("filter_subjects"):
                return False
        return True

    async def _provision_durable(
        self, stream: str, name: str, config: Config, exists: bool, *, begins: bool = True
    ) -> None:
        if not exists:
            first = self._begin.durables.get(name, 1) if begins else 1
            begin = {"deliver_policy": BY_SEQUENCE, "opt_start_seq": first} if first > 1 else {}
            request = {"stream_name": stream, "config": config | begin}
            await self._create_resource(f"{stream}/{name}", f"CONSUMER.CREATE.{stream}.{name}", request)
            self._report.made.append(f"{stream}/{name}")
            return
        current = await self._request_api(f"CONSUMER.INFO.{stream}.{name}", {})
        if current["config"].get("deliver_policy") == BY_SEQUENCE:
            # A restore made it: where it began cannot be changed and matters no more.
            config = config | {key: current["config"].get(key) for key in ("deliver_policy", "opt_start_seq")}
        wrong = list_differences(config, current["config"])
        if not wrong:
            return
        request = {"stream_name": stream, "config": config}
        way, label = "start the version that made it", f"durable {name} of {stream}"
        await self._change_settings(label, f"CONSUMER.CREATE.{stream}.{name}", request, wrong, way)
        self._report.changed.append(f"{stream}/{name}: {'; '.join(wrong)}")

    async def _provision_event_durable(self, config: Config, exists: bool) -> None:
        """Make a subscriber's durable. In a restore it is set to its position after that: one that began there could
        not
        be set back again to what lies before.
        """
        name, stream = config["name"], subjects.EVENTS_STREAM
        await self._provision_durable(stream, name, config, exists, begins=False)
        if not exists and (first := self._begin.durables.get(name, 1)) > 1:
            await self._create_resource(f"{stream}/{name}", f"CONSUMER.RESET.{stream}.{name}", {"seq": first})

    async def _change_settings(
        self, resource: str, request: str, body: Mapping[str, Any], wrong: Sequence[str], remedy: str
    ) -> None:
        try:
            await self._request_api(request, body)
        except _RequestRefused as refused:
            differs = f"exists with other settings that cannot be changed: {'; '.join(wrong)} ({refused})"
            raise ProvisionError(f"{resource} {differs}; {remedy}") from refused

    async def _create_resource(self, resource: str, request: str, body: Mapping[str, Any]) -> None:
        try:
            await self._request_api(request, body)
        except _RequestRefused as refused:
            if refused.code == NO_STORAGE:
                bound = sum(config["max_bytes"] for config in stream_configs(self._layout)) // GIB + 1
                raise ProvisionError(
                    f"{resource} cannot be made: the broker's max_file_store is below the sum of all streams' bounds; "
                    f"set it to {bound}GB or more in its jetstream block and restart it "
                    "(a bound takes no disk by itself)"
                ) from refused
            raise ProvisionError(f"{resource} cannot be made: {refused}; see the broker's log") from refused

    async def _request_api(self, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer. A leader may be away for a moment, or the accounts; every request can be made again."""
        loop = asyncio.get_running_loop()
        limit_s = CLUSTER_TIMEOUT_S if self._in_cluster else TIMEOUT_S
        deadline = loop.time() + (PATIENCE_S if self._in_cluster else RELOADING_S)
        while True:
            try:
                message = await self._client.request(API + request, json.dumps(body).encode(), timeout=limit_s)
                answer: dict[str, Any] = json.loads(message.data)
                error = answer.get("error", {})
                if not error:
                    return answer
                code, reason = int(error.get("err_code", 0)), str(error.get("description", "no reason given"))
                if code not in NO_LEADER or not self._in_cluster:
                    raise _RequestRefused(code, reason)
            except (errors.TimeoutError, errors.NoRespondersError) as silent:
                reloading = isinstance(silent, errors.NoRespondersError) and loop.time() <= deadline
                if self._client.is_closed or not (self._in_cluster or reloading):
                    raise
                reason = str(silent)
            if self._in_cluster and loop.time() > deadline:
                way = "more than half of its brokers must run; start the missing ones, nothing is lost"
                raise ProvisionError(f"the cluster has no leader to ask ({reason}): {way}")
            await asyncio.sleep(PAUSE_S)

    @property
    def _in_cluster(self) -> bool:
        return bool(self._client._server_info.get("cluster"))


def _with_restored_sources(config: Config, current: Mapping[str, Any]) -> Config:
    """Settings with the beginnings of sources that a restore set: without those, a change of anything would let the
    broker fetch once more what the stream holds already."""
    first = {
        source["name"]: source["opt_start_seq"]
        for source in current.get("sources") or ()
        if source.get("opt_start_seq")
    }
    if not first or "sources" not in config:
        return config
    begun = [
        source | ({"opt_start_seq": first[source["name"]]} if source["name"] in first else {})
        for source in config["sources"]
    ]
    return config | {"sources": begun}


def list_differences(planned: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Settings in which `current` disagrees. The broker leaves out what is empty, and adds to objects."""
    return [
        f"{key} is {json.dumps(current.get(key))}, should be {json.dumps(value)}"
        for key, value in planned.items()
        if not _is_same_setting(value, current.get(key))
    ]


def _is_same_setting(planned: Any, current: Any) -> bool:
    if current is None:
        return planned in (None, False, 0, "", [], {})
    if isinstance(planned, dict):
        return isinstance(current, dict) and all(
            _is_same_setting(value, current.get(key)) for key, value in planned.items()
        )
    if isinstance(planned, list):
        return (
            isinstance(current, list) and len(current) == len(planned) and all(map(_is_same_setting, planned, current))
        )
    return bool(planned == current)
