"""Regular upkeep of a mesh in containers, as `bulkhead up` does it: the provisioner's image, command `upkeep`.

In: the broker; the keys of the operator (who reads) and of the provisioner (who removes and makes), in its own volume;
BULKHEAD_RETENTION. Out: ended tasks go after their retention, once a day; JOURNAL is compared with the inboxes at the
start, when the broker has started again, and once a day, and made again when it lacks something. Messages that only
the journal had are kept below /bulkhead/data/lost. It listens nowhere; between two looks it holds no connection.
"""

import asyncio
import json
import signal
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bulkhead.bus.jetstream.connection import CA_FILE, tls_context
from bulkhead_infra.identity import keys
from bulkhead_infra.local.journal import JournalKeeper
from bulkhead_infra.local.upkeep import purge_daily
from bulkhead_infra.nats.purge import Retention
from bulkhead_infra.nats.streams import Layout

BROKER_PORT = 4222
LOOK_EVERY_S = 5.0
ASK_TIMEOUT_S = 5.0


async def run_upkeep(url: str, identity: Path, data: Path, layout: Layout, retention: Retention) -> None:
    """Until SIGTERM. url: of the broker, or of all of a cluster, by TLS. identity: keys, the CA. Raises BusError."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    seed_of = partial(keys.nkey_seed, identity)
    ca_file = identity / CA_FILE
    trusted = tls_context(ca_file)
    journal = JournalKeeper(url, seed_of, layout, data / "lost", _print_event, ca_file)
    purging = asyncio.create_task(purge_daily(url, seed_of, retention, _print_event, ca_file, layout.publishers))
    journal.start()
    watching = asyncio.create_task(
        watch_broker(partial(read_incarnations, url.split(","), trusted), journal.note_broker_state)
    )
    try:
        await ended.wait()
    finally:
        purging.cancel()
        watching.cancel()
        await asyncio.gather(purging, watching, return_exceptions=True)
        await journal.stop()


async def watch_broker(read_state: Callable[[], Awaitable[str]], report_state: Callable[[str], None]) -> None:
    """Say `away` and `ready` of the broker whenever it has started again, however short it was away."""
    known_incarnation = ""
    while True:
        current_incarnation = await read_state()
        if current_incarnation != known_incarnation:
            report_state("away")
        if current_incarnation:
            report_state("ready")
            known_incarnation = current_incarnation
        await asyncio.sleep(LOOK_EVERY_S)


async def read_incarnations(urls: Sequence[str], trusted: ssl.SSLContext) -> str:
    """One text for all brokers, which changes when one of them has started again; "" while all are away."""
    ids = await asyncio.gather(*(read_incarnation(url, trusted) for url in urls))
    return ",".join(ids) if any(ids) else ""


async def read_incarnation(url: str, trusted: ssl.SSLContext) -> str:
    """The broker's id since its start, which it tells every client that connects; "" while it is away."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, parts.port or BROKER_PORT, ssl=trusted)
            try:
                verb, _, payload = (await reader.readline()).partition(b" ")
                server_info = json.loads(payload) if verb == b"INFO" else {}
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError):
        return ""
    return str(server_info.get("server_id", ""))


def _print_event(text: str) -> None:
    print(json.dumps({"level": "info", "service": "upkeep", "event": "upkeep", "text": text}), flush=True)
