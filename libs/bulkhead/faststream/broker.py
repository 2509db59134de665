"""A FastStream broker under one outside identity.

In: an address and the file of a key, which bears the identity's name. Out: a `NatsBroker` that logs in with it, uses
the broker's API by the names that its account has, and connects again for ever.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from faststream.nats import NatsBroker
from faststream.nats.security import NatsNKey
from faststream.types import BrokerMiddleware
from nats.errors import ConnectionClosedError

from bulkhead.bus.jetstream.connection import tls_context

API = "JSMESH.API"
PING_S = 5
LOOK_S = 2.0


def make_broker(
    url: str, identity_file: Path, ca_file: Path | None, *middlewares: BrokerMiddleware
) -> tuple[NatsBroker, str, bytes]:
    """The broker, the identity's name, and the prefix of its inboxes. ca_file: TLS. The key is read when it starts."""
    name = identity_file.name.removesuffix(".nkey")
    if not identity_file.name.endswith(".nkey"):
        raise ValueError(f"{identity_file}: a key's file is named after its identity, as sub_demo.nkey")
    tls = tls_context(ca_file) if ca_file is not None else None
    inbox = f"_INBOX_{name}"
    broker = NatsBroker(
        url,
        security=NatsNKey(identity_file, ssl_context=tls, tls_handshake_first=tls is not None),
        name=name,
        js_options={"prefix": API},
        inbox_prefix=inbox,
        max_reconnect_attempts=-1,
        ping_interval=PING_S,
        middlewares=middlewares,
        log_level=logging.DEBUG,  # Two lines per event otherwise.
    )
    return broker, name, f"{inbox}.".encode()


def slow_retries(subscription: Any) -> None:
    """FastStream asks a connection that is closed again at once, for ever, and nothing else would run beside it."""
    if subscription is None:
        return  # FastStream's broker for tests has none.
    fetch = subscription.fetch

    async def fetch_slowly(*args: Any, **more: Any) -> Any:
        try:
            return await fetch(*args, **more)
        except ConnectionClosedError:
            await asyncio.sleep(LOOK_S)
            raise

    subscription.fetch = fetch_slowly


async def watch_connection(broker: NatsBroker) -> None:
    """Raises SystemExit once the connection will not come back by itself, which nobody is told otherwise.

    nats-py gives up for good, without a word, when a broker that is back does not know the key.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        client = broker.config.connection_state.connection
        trying = getattr(client, "_reconnection_task", None)
        if client.is_closed or (not client.is_connected and trying is not None and trying.done()):
            way = "its row may be gone from policy.yaml, or its key be another now; start again when that is mended"
            raise SystemExit(f"the broker does not let {client.options.get('name')} in any more: {way}")
