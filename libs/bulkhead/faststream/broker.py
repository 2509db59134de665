"""A FastStream broker under one outside identity.

In: an address and the file of a key, which bears the identity's name. Out: a `NatsBroker` that logs in with it, uses
the broker's API by the names that its account has, and connects again for ever.
"""

import logging
from pathlib import Path

from faststream.nats import NatsBroker
from faststream.nats.security import NatsNKey
from faststream.types import BrokerMiddleware

from bulkhead.bus.jetstream.connection import trusting

API = "JSMESH.API"
PING_S = 5


def make(
    url: str, identity_file: Path, ca_file: Path | None, *middlewares: BrokerMiddleware
) -> tuple[NatsBroker, str, bytes]:
    """The broker, the identity's name, and the prefix of its inboxes. ca_file: TLS. The key is read when it starts."""
    name = identity_file.name.removesuffix(".nkey")
    if not identity_file.name.endswith(".nkey"):
        raise ValueError(f"{identity_file}: a key's file is named after its identity, as sub_demo.nkey")
    tls = trusting(ca_file) if ca_file is not None else None
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
