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

from bulkhead.bus.jetstream.connection import trusting
from bulkhead.bus.port import BusError
from bulkhead_contracts import bounds, subjects
from bulkhead_infra.identity.policy import PROVISIONER
from bulkhead_infra.identity.rights import API, inbox_prefix
from bulkhead_infra.nats.configuration import MAX_PAYLOAD_BYTES
from bulkhead_infra.nats.stream_sizes import GIB, StoreTooSmall
from bulkhead_infra.nats.streams import MIN_VERSION, Config, Layout, durables, event_durables, streams

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
class Report:
    """Names of what was made and what was changed; kept: what is larger than it should be, in words, by name."""

    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begin:
    """With which sequence a durable that is made begins, and from which on a source of another stream is fetched."""

    durables: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)


class _Dropped(Exception):
    """There is no connection any more, or not yet: whatever was asked may have been done. Says what to do."""

    def __init__(self, text: str, patience_s: float = PATIENCE_S) -> None:
        super().__init__(text)
        self.patience_s = patience_s


class _Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


async def provision(
    url: str, nkey_seed: str, layout: Layout | None = None, begin: "Begin | None" = None, ca_file: Path | None = None
) -> Report:
    """Make everything. begin: of a restore. ca_file: TLS. Raises ProvisionError.

    A broker that reads its accounts again drops connections, this one too: what was made stands, the rest is made over
    another one.
    """
    wanted = layout or Layout()
    try:
        streams(wanted)
    except StoreTooSmall as error:
        raise ProvisionError(str(error)) from error
    report, loop = Report(), asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            await _over_one_connection(url, nkey_seed, ca_file, partial(_Provisioner, wanted, begin or Begin(), report))
            return report
        except _Dropped as dropped:
            if loop.time() > began + dropped.patience_s:
                raise ProvisionError(str(dropped)) from dropped
        await asyncio.sleep(PAUSE_S)


async def _over_one_connection(
    url: str, nkey_seed: str, ca_file: Path | None, provisioner: "Callable[[Client], _Provisioner]"
) -> None:
    """Raises ProvisionError, _Dropped."""
    client, loop = Client(), asyncio.get_running_loop()
    trouble, gone = loop.create_future(), loop.create_future()

    async def failed(error: Exception) -> None:
        if not trouble.done() and "permissions violation" in str(error).lower():
            trouble.set_result(error)

    async def closed() -> None:
        if not gone.done():
            gone.set_result(None)

    await _connect(client, url, nkey_seed, ca_file, failed, closed)
    making = None
    try:
        _fit(client, url)
        making = asyncio.ensure_future(provisioner(client).run())
        # A request whose connection has ended would wait for its answer to the end of its time.
        await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            raise _Dropped(f"the broker at {url} hung up: {client.last_error}; see its log, then start again")
        await making
    except (errors.Error, OSError) as error:
        said = str(trouble.result()) if trouble.done() else f"{type(error).__name__} {error}"
        kind = _Dropped if gone.done() else ProvisionError
        raise kind(f"the broker at {url} did not answer: {said}; see its log, then start again") from error
    finally:
        if making is not None:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        await client.close()


def connect_options(identity: str, nkey_seed: str, ca_file: Path | None) -> dict[str, Any]:
    """Options of nats-py for one connection under an identity, which does not come back by itself. Raises BusError."""
    tls = {"tls": trusting(ca_file), "tls_handshake_first": True} if ca_file is not None else {}
    once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "connect_timeout": CONNECT_TIMEOUT_S}
    return {"name": identity, "nkeys_seed_str": nkey_seed, "inbox_prefix": inbox_prefix(identity), **once, **tls}


async def _connect(
    client: Client,
    url: str,
    nkey_seed: str,
    ca_file: Path | None,
    failed: Callable[[Exception], Awaitable[None]],
    closed: Callable[[], Awaitable[None]],
) -> None:
    """Raises ProvisionError; _Dropped where somebody answers and hangs up."""
    try:
        options = connect_options(PROVISIONER, nkey_seed, ca_file)
        await client.connect(url.split(","), error_cb=failed, closed_cb=closed, **options)
    except (errors.Error, OSError, BusError) as error:
        if "authorization" in str(error).lower():
            raise _Dropped(
                f"the broker at {url} does not know the keys of this mesh: include what `bulkhead render accounts` "
                "writes in its configuration, reload it, then start again",
                RELOADING_S,
            ) from error
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ProvisionError(
                f"the broker at {url} has a certificate of a CA that is not trusted here: name the CA's file in "
                "SSL_CERT_FILE, and write an address that stands in the certificate"
            ) from error
        kind = ProvisionError if isinstance(error, errors.NoServersError | BusError) else _Dropped
        raise kind(f"cannot reach the broker at {url} as provisioner: {error}; is it running?") from error


def _fit(client: Client, url: str) -> None:
    """Raises ProvisionError for a broker that cannot hold a mesh, whatever is asked of it."""
    info = client._server_info  # nats-py shows but parts of what the broker says of itself.
    if not info.get("auth_required"):
        way = "include what `bulkhead render accounts` writes in its configuration, and reload it"
        raise ProvisionError(f"the broker at {url} asks nobody for a key: no wall between services would stand; {way}")
    if not info.get("jetstream"):
        raise ProvisionError(f"the broker at {url} runs without JetStream; add a jetstream block to its configuration")
    found = client.connected_server_version
    if (found.major, found.minor) < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        way = f"at least {wanted} is needed: upgrade it, its data can stay"
        raise ProvisionError(f"the broker at {url} is nats-server {found.major}.{found.minor}; {way}")
    if client.max_payload < bounds.MAX_STORED_BLOB_BYTES:
        raise ProvisionError(
            f"the broker at {url} takes messages of at most {client.max_payload} bytes and contents have up to "
            f"{bounds.MAX_STORED_BLOB_BYTES}; set max_payload to {MAX_PAYLOAD_BYTES} in its configuration and reload it"
        )


class _Provisioner:
    def __init__(self, layout: Layout, begin: Begin, report: Report, client: Client) -> None:
        self._layout, self._begin, self._report, self._client = layout, begin, report, client
        self._over: dict[str, int] = {}

    async def run(self) -> None:
        configs = [self._begun(config) for config in streams(self._layout)]
        await asyncio.gather(*(self._narrowed(one) for one in configs if one.get("subjects") and "sources" in one))
        derived = [one for one in configs if "sources" in one]
        await asyncio.gather(*(self._stream(one) for one in configs if "sources" not in one))
        await asyncio.gather(*(self._stream(one) for one in derived if "subjects" in one))
        await asyncio.gather(*(self._stream(one) for one in derived if "subjects" not in one))
        await asyncio.gather(*(self._durables(name) for name in {name for name, _ in durables(self._layout)}))
        existing = await self._durable_names(subjects.EVENTS_STREAM)
        for one in event_durables(self._layout):
            await self._event_durable(one, one["name"] in existing)

    def _begun(self, config: Config) -> Config:
        first, sources = self._begin.sources, config.get("sources", ())
        if not any(first.get(source["name"], 1) > 1 for source in sources):
            return config
        begun = [source | {"opt_start_seq": max(1, first.get(source["name"], 1))} for source in sources]
        return config | {"sources": begun}

    async def _narrowed(self, config: Config) -> None:
        """Take from a stream that is there the subjects that go to others: no two may hold one."""
        name = config["name"]
        try:
            found = (await self._ask(f"STREAM.INFO.{name}", {}))["config"]
        except _Refused:
            return  # There is none yet.
        if set(found.get("subjects") or ()) != set(config["subjects"]):
            changed, way = found | {"subjects": config["subjects"]}, "start the version that made it"
            await self._change(f"stream {name}", f"STREAM.UPDATE.{name}", changed, ["subjects"], way)

    async def _stream(self, config: Config) -> None:
        name, most = config["name"], config["max_bytes"]
        try:
            found = await self._ask(f"STREAM.INFO.{name}", {})
        except _Refused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise ProvisionError(f"stream {name}: {refused}; see the broker's log") from refused
            await self._make(name, f"STREAM.CREATE.{name}", config)
            self._report.made.append(name)
            return
        if not self._layout.store_gib:
            # Nobody says how much disk there is now: what was said before stands.
            config = config | {"max_bytes": found["config"].get("max_bytes", most)}
        elif most < found["state"]["bytes"]:
            config = config | {"max_bytes": self._kept(name, most, found)}
        config = _as_restored(config, found["config"])
        wrong = differences(config, found["config"])
        if not wrong:
            return
        way = "start the version that made it, or move its data away and let it be made anew"
        await self._change(f"stream {name}", f"STREAM.UPDATE.{name}", found["config"] | config, wrong, way)
        self._report.changed.append(f"{name}: {'; '.join(wrong)}")

    def _kept(self, name: str, most: int, found: Mapping[str, Any]) -> int:
        """The bound of a stream that holds more than its share. Raises ProvisionError.

        Its old one, where a version has taken a little from it for others: it must not stand still for an upgrade.
        """
        held, store = found["state"]["bytes"], self._layout.store_gib
        bound: int = found["config"].get("max_bytes", -1)
        way = "give more (--store-gib, in containers BULKHEAD_STORE_GIB)"
        self._over[name] = bound - most
        if bound > 0 and sum(self._over.values()) <= store * GIB * KEPT_PERCENT // 100:
            why = f"it holds {held / GIB:.2f}, and its share of {store} GiB is {most / GIB:.2f} now"
            self._report.kept[name] = f"{name} keeps its bound of {bound / GIB:.2f} GiB: {why}; {way} when you can"
            return bound
        # A stream that drops its oldest would do so at once, and timers are among those.
        raise ProvisionError(
            f"stream {name} holds {held / GIB:.1f} GiB, and of a store of {store} GiB it would get {most / GIB:.1f}: "
            f"{way}, or purge ended tasks first (python -m bulkhead_infra.nats.purge; in containers `upkeep` does it, "
            "with a shorter BULKHEAD_RETENTION)"
        )

    async def _durables(self, stream: str) -> None:
        wanted = {one["name"]: one for name, one in durables(self._layout) if name == stream}
        existing = await self._durable_names(stream)
        service = next(iter(wanted)).rpartition("-")[0]
        before = {one for one in existing if one.rpartition("-")[0] == service}
        if before != set(wanted) and not await self._begun_by_this_layout(stream, before, wanted):
            # A durable that starts now would be handed the whole inbox again, one that goes would strand messages.
            raise ProvisionError(
                f"{stream} has {len(before)} shard(s) and {len(wanted)} are wanted; start it with {len(before)}, or "
                "drain the service and remove its durables by hand before the number is changed"
            )
        for name, config in wanted.items():
            await self._durable(stream, name, config, name in existing)

    async def _durable_names(self, stream: str) -> set[str]:
        return set((await self._ask(f"CONSUMER.NAMES.{stream}", {})).get("consumers") or ())

    async def _begun_by_this_layout(self, stream: str, before: set[str], wanted: Mapping[str, Config]) -> bool:
        """Whether these are some of the wanted ones, made by somebody who did not get to the rest."""
        if not before <= set(wanted):
            return False
        for name in before:
            found = await self._ask(f"CONSUMER.INFO.{stream}.{name}", {})
            if found["config"].get("filter_subjects") != wanted[name].get("filter_subjects"):
                return False
        return True

    async def _durable(self, stream: str, name: str, config: Config, exists: bool, *, begins: bool = True) -> None:
        if not exists:
            first = self._begin.durables.get(name, 1) if begins else 1
            begin = {"deliver_policy": BY_SEQUENCE, "opt_start_seq": first} if first > 1 else {}
            request = {"stream_name": stream, "config": config | begin}
            await self._make(f"{stream}/{name}", f"CONSUMER.CREATE.{stream}.{name}", request)
            self._report.made.append(f"{stream}/{name}")
            return
        found = await self._ask(f"CONSUMER.INFO.{stream}.{name}", {})
        if found["config"].get("deliver_policy") == BY_SEQUENCE:
            # A restore made it: where it began cannot be changed and matters no more.
            config = config | {key: found["config"].get(key) for key in ("deliver_policy", "opt_start_seq")}
        wrong = differences(config, found["config"])
        if not wrong:
            return
        request = {"stream_name": stream, "config": config}
        way, what = "start the version that made it", f"durable {name} of {stream}"
        await self._change(what, f"CONSUMER.CREATE.{stream}.{name}", request, wrong, way)
        self._report.changed.append(f"{stream}/{name}: {'; '.join(wrong)}")

    async def _event_durable(self, config: Config, exists: bool) -> None:
        """Of a restore it is set to its position after it was made: one that began there could not be set back again to
        what lies before."""
        name, stream = config["name"], subjects.EVENTS_STREAM
        await self._durable(stream, name, config, exists, begins=False)
        if not exists and (first := self._begin.durables.get(name, 1)) > 1:
            await self._make(f"{stream}/{name}", f"CONSUMER.RESET.{stream}.{name}", {"seq": first})

    async def _change(self, what: str, request: str, body: Mapping[str, Any], wrong: Sequence[str], way: str) -> None:
        try:
            await self._ask(request, body)
        except _Refused as refused:
            differs = f"exists with other settings that cannot be changed: {'; '.join(wrong)} ({refused})"
            raise ProvisionError(f"{what} {differs}; {way}") from refused

    async def _make(self, what: str, request: str, body: Mapping[str, Any]) -> None:
        try:
            await self._ask(request, body)
        except _Refused as refused:
            if refused.code == NO_STORAGE:
                bound = sum(one["max_bytes"] for one in streams(self._layout)) // GIB + 1
                raise ProvisionError(
                    f"{what} cannot be made: the broker's max_file_store is below the sum of all streams' bounds; set "
                    f"it to {bound}GB or more in its jetstream block and restart it (a bound takes no disk by itself)"
                ) from refused
            raise ProvisionError(f"{what} cannot be made: {refused}; see the broker's log") from refused

    async def _ask(self, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
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
                code, said = int(error.get("err_code", 0)), str(error.get("description", "no reason given"))
                if code not in NO_LEADER or not self._in_cluster:
                    raise _Refused(code, said)
            except (errors.TimeoutError, errors.NoRespondersError) as silent:
                reloading = isinstance(silent, errors.NoRespondersError) and loop.time() <= deadline
                if self._client.is_closed or not (self._in_cluster or reloading):
                    raise
                said = str(silent)
            if self._in_cluster and loop.time() > deadline:
                way = "more than half of its brokers must run; start the missing ones, nothing is lost"
                raise ProvisionError(f"the cluster has no leader to ask ({said}): {way}")
            await asyncio.sleep(PAUSE_S)

    @property
    def _in_cluster(self) -> bool:
        return bool(self._client._server_info.get("cluster"))


def _as_restored(config: Config, found: Mapping[str, Any]) -> Config:
    """Settings with the beginnings of sources that a restore set: without those, a change of anything would let the
    broker fetch once more what the stream holds already."""
    first = {one["name"]: one["opt_start_seq"] for one in found.get("sources") or () if one.get("opt_start_seq")}
    if not first or "sources" not in config:
        return config
    begun = [one | ({"opt_start_seq": first[one["name"]]} if one["name"] in first else {}) for one in config["sources"]]
    return config | {"sources": begun}


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
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
