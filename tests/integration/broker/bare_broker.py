"""A nats-server with the accounts of the mesh and no streams, and buses that log in there.

In: a folder, which gets the keys. Out: the server while the context lasts.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.server import NatsServer


@asynccontextmanager
async def bare_broker(folder: Path, shards: Mapping[str, int] | None = None, **plan: Any) -> AsyncIterator[NatsServer]:
    """Its identities lie in `identity`. plan: fields of ServerPlan."""
    rules, identity = policy.load_policy(), folder / "identity"
    keys.ensure_keys(identity, rules)
    accounts = render.render_accounts(rules, keys.public_nkeys(identity, rules), shards)
    wanted = ServerPlan(folder / "nats", free_port(), free_port(), durability="process", **plan)
    server = NatsServer(wanted, accounts, os.environ)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def bus_of(url: str, identity: Path, service: str, **options: Any) -> AsyncIterator[JetStreamBus]:
    """A bus under one identity of a folder."""
    found = await JetStreamBus.connect(url, service=service, nkey_seed=keys.nkey_seed(identity, service), **options)
    try:
        yield found
    finally:
        await found.close()
