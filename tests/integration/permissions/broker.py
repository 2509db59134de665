"""A real nats-server with the rendered accounts, and raw clients that see what the broker refuses.

In: a folder. Out: `Broker`, `Client`. Raw nats-py on purpose: an attacker does not use our adapter.
"""

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import psutil
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.server import NatsServer
from bulkhead_infra.processes.http import get_url
from tests.integration.identity import world as logins
from tests.integration.identity.world import Issuer
from tests.integration.permissions import expected

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
ANSWER_S = 30.0


class Broker:
    """A server that runs with the policy's accounts. issuer: whose tokens let services in; None: they have nkeys."""

    def __init__(self, server: NatsServer, identity: Path, issuer: Issuer | None = None) -> None:
        self.server = server
        self.identity = identity
        self.url = server.plan.url
        self.issuer = issuer
        self.identities = (*expected.IDENTITIES, *([expected.CALLOUT] if issuer else ()))

    def seed(self, identity: str) -> str:
        """Of what is secret to this identity: its nkey, or where it has none its signing key."""
        if self._by_token(identity):
            return (self.identity / f"{identity}.sign").read_text().strip()
        return keys.nkey_seed(self.identity, identity)

    def credentials(self, identity: str) -> dict[str, str]:
        """What this identity logs in with."""
        if self.issuer is not None and self._by_token(identity):
            return {"token": self.issuer.token(identity)}
        return {"nkeys_seed_str": self.seed(identity)}

    def _by_token(self, identity: str) -> bool:
        return self.issuer is not None and identity in expected.SERVICES

    @asynccontextmanager
    async def client(self, identity: str, **options: Any) -> AsyncIterator["Client"]:
        """Connected as `identity`."""
        found = Client(identity)
        await found.connect(self.url, **{"connect_timeout": 6, **self.credentials(identity), **options})
        try:
            yield found
        finally:
            await found.nc.close()

    async def contents(self) -> dict[str, tuple[int, int, int]]:
        """(messages, first, last) of every stream, by the monitoring port: no identity's rights matter there."""
        _, body = await get_url(f"{self.server.plan.monitor_url}/jsz?streams=true&accounts=true", 5)
        return {
            one["name"]: (one["state"]["messages"], one["state"]["first_seq"], one["state"]["last_seq"])
            for account in json.loads(body)["account_details"]
            for one in account["stream_detail"]
        }

    async def responses(self, account: str = "MESH") -> int:
        """Questions that an account still remembers."""
        _, body = await get_url(f"{self.server.plan.monitor_url}/accountz?acc={account}", 10)
        return len(json.loads(body)["account_detail"].get("responses") or {})

    def rss(self) -> int:
        assert self.server.child is not None
        return psutil.Process(self.server.child.pid).memory_info().rss


class Client:
    """Raw client of one identity."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.nc: Nats
        self.denied: set[str] = set()
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = itertools.count()
        self._pulls: dict[str, str] = {}
        self.prefix = f"_INBOX_{identity}.probe."

    async def connect(self, url: str, **options: Any) -> None:
        self.nc = await nats.connect(
            url, inbox_prefix=f"_INBOX_{self.identity}", error_cb=self._error, allow_reconnect=False, **options
        )
        await self.nc.subscribe(f"{self.prefix}*", cb=self._answer)
        await self.settle()

    async def _error(self, error: Exception) -> None:
        match = _DENIED.search(str(error))
        if match:
            self.denied.add(match[2].lower())

    async def _answer(self, message: Msg) -> None:
        # A pulled message comes under its own subject; its ack subject tells which pull brought it.
        pulled = self._pulls.get(".".join(message.reply.split(".")[2:4])) if message.reply else None
        waiting = self._answers.get(pulled or message.subject)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def ask(
        self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[Msg]":
        """Send with an own reply subject; the answer comes in the future."""
        reply = f"{self.prefix}{next(self._numbers)}"
        if subject.startswith("JSMESH.API.CONSUMER.MSG.NEXT."):
            self._pulls[subject.removeprefix("JSMESH.API.CONSUMER.MSG.NEXT.")] = reply
        self._answers[reply] = asyncio.get_running_loop().create_future()
        await self.nc.publish(subject, body, reply=reply, headers=dict(headers or {}) or None)
        return self._answers[reply]

    async def store(
        self, subject: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Publish and read the PubAck (or its error)."""
        reply = await asyncio.wait_for(await self.ask(subject, body, headers), ANSWER_S)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def settle(self) -> None:
        """Everything sent so far has been judged by the broker."""
        # nats-py writes its ping past what waits to be written: only the second one comes after it.
        await self.nc.flush(timeout=20)
        await self.nc.flush(timeout=20)

    async def is_denied(self, subject: str) -> bool:
        await self.settle()
        return subject.lower() in self.denied


@asynccontextmanager
async def running(
    folder: Path,
    *,
    change: Callable[[str], str] = lambda text: text,
    threshold: str | None = None,
    tokens: bool = False,
    open_lists: tuple[str, ...] = (),
) -> AsyncIterator[Broker]:
    """A provisioned broker. `change` edits the rendered accounts: to see what a layer does on its own. tokens: services
    log in with tokens; open_lists: of their permissions these name every subject."""
    if tokens:
        async with logins.running(folder, change=change, open_lists=open_lists) as world:
            yield Broker(world.server, world.identity, world.issuer)
        return
    rules = policy.load_policy()
    keys.ensure_keys(folder / "identity", rules)
    options: dict[str, Any] = {"response_threshold": threshold} if threshold else {}
    accounts = change(render.render_accounts(rules, keys.public_nkeys(folder / "identity", rules), **options))
    plan = ServerPlan(folder / "nats", free_port(), free_port(), "process")
    server = NatsServer(plan, accounts, os.environ)
    await server.start()
    try:
        await provision(plan.url, keys.nkey_seed(folder / "identity", policy.PROVISIONER))
        yield Broker(server, folder / "identity")
    finally:
        await server.stop()
