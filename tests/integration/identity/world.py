"""A broker that asks the identity service about logins, replicas of that service, and an issuer of tokens.

In: a folder. Out: `World`. Everything is real but the cluster: a nats-server, processes of the service, RSA and P-256
keys, a key set in a file.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import nats
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from nats.aio.client import Client as Nats

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.server import NatsServer
from bulkhead_infra.processes.http import get_url
from tests.eventually import until

ISSUER, AUDIENCE, NAMESPACE = "https://kubernetes.default.svc", "bulkhead-bus", "bulkhead"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """An issuer of service-account tokens with a key set."""

    def __init__(self, key_set: Path) -> None:
        self.key_set = key_set
        self.keys: dict[str, Key] = {}
        self.add("first", rsa.generate_private_key(65537, 2048))

    def add(self, kid: str, key: Key, *, alone: bool = False) -> None:
        self.keys = {**({} if alone else self.keys), kid: key}
        self.publish()

    def publish(self) -> None:
        self.key_set.write_text(json.dumps({"keys": [public(kid, key) for kid, key in self.keys.items()]}))

    def claims(self, service: str, lasts_s: float = 3600, **changes: Any) -> dict[str, Any]:
        now, name = int(time.time()), service.replace("_", "-")
        found = {
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": f"system:serviceaccount:{NAMESPACE}:{name}",
            "iat": now,
            "nbf": now,
            "exp": int(now + lasts_s),
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {"namespace": NAMESPACE, "pod": {"name": f"{name}-x1", "uid": str(uuid.uuid4())}},
        }
        return {name: value for name, value in {**found, **changes}.items() if value is not None}

    def token(self, service: str, lasts_s: float = 3600, *, kid: str = "", **changes: Any) -> str:
        kid = kid or list(self.keys)[-1]
        return signed(self.claims(service, lasts_s, **changes), self.keys[kid], kid)


def signed(claims: dict[str, Any], key: Key, kid: str) -> str:
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    return jwt.encode(claims, key, algorithm, {"kid": kid})


def public(kid: str, key: Key) -> dict[str, Any]:
    kind: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    row = kind.to_jwk(key.public_key(), as_dict=True)
    return {**row, "kid": kid, "use": "sig", "alg": "RS256" if row["kty"] == "RSA" else "ES256"}


class World:
    """The broker, its keys, and the replicas that run."""

    def __init__(self, folder: Path, url: str, issuer: Issuer) -> None:
        self.folder, self.url, self.issuer = folder, url, issuer
        self.identity = folder / "identity"
        self.server: NatsServer
        self.replicas: dict[int, asyncio.subprocess.Process] = {}
        self.ports: dict[int, int] = {}

    def seed(self, identity: str) -> str:
        return keys.nkey_seed(self.identity, identity)

    async def start(self, number: int = 0, *, wait: bool = True, module: str = "identity", **settings: str) -> None:
        """One replica of the identity service, or of another."""
        self.ports[number] = free_port()
        own = {
            "NATS_URL": self.url,
            "IDENTITY_DIR": str(self.identity),
            "DATA_DIR": str(self.folder / "data"),
            "INSTANCE": str(number),
            "HEALTH_PORT": str(self.ports[number]),
            "TOKEN_ISSUER": ISSUER,
            "KEY_SET_FILE": str(self.issuer.key_set),
            "TRACE": "false",
            **settings,
        }
        environment = {**os.environ, **{f"BULKHEAD_{name}": value for name, value in own.items() if value}}
        with self.log(number).open("ab") as out:
            self.replicas[number] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"bulkhead_services.{module}.app", stdout=out, stderr=out, env=environment
            )
        if wait:
            await until(lambda: self.ready(number), f"replica {number} is ready; see {self.log(number)}", every_s=0.1)

    def log(self, number: int = 0) -> Path:
        return self.folder / f"identity-{number}.log"

    def broker_log(self) -> str:
        return (self.folder / "logs" / "nats.log").read_text()

    async def status(self, number: int = 0) -> dict[str, Any]:
        try:
            _, body = await get_url(f"http://127.0.0.1:{self.ports[number]}/readyz", 2)
        except OSError:
            return {}
        found: dict[str, Any] = json.loads(body)
        return found

    async def ready(self, number: int = 0) -> bool:
        return bool((await self.status(number)).get("ready"))

    async def stop(self, number: int = 0, *, kill: bool = False) -> None:
        process = self.replicas.pop(number)
        if process.returncode is None:
            process.kill() if kill else process.terminate()
        await process.wait()

    @asynccontextmanager
    async def client(self, token: str, service: str = "worker", **options: Any) -> AsyncIterator[Nats]:
        """A raw client that shows this token."""
        client = await self.connect(token, service, **options)
        try:
            yield client
        finally:
            await client.close()

    async def connect(self, token: str, service: str = "worker", **options: Any) -> Nats:
        async def quiet(_: Exception) -> None: ...

        options = {"error_cb": quiet, "allow_reconnect": False, "connect_timeout": 6, **options}
        if token:
            options["token"] = token
        return await nats.connect(self.url, inbox_prefix=f"_INBOX_{service}", **options)

    async def raw_login(self, options: dict[str, Any]) -> str:
        """What the broker says to these words of a client."""
        plan = self.server.plan
        reader, writer = await asyncio.open_connection(plan.host, plan.port)
        try:
            await reader.readline()
            said = {"verbose": False, "pedantic": False, "lang": "test", "version": "1", "protocol": 1, **options}
            writer.write(f"CONNECT {json.dumps(said)}\r\nPING\r\n".encode())
            while (line := await asyncio.wait_for(reader.readline(), 10)).startswith(b"PING"):
                writer.write(b"PONG\r\n")
            return line.decode()
        finally:
            writer.close()

    async def refused(self, token: str, **options: Any) -> bool:
        """Whether the broker does not let this token in."""
        try:
            async with self.client(token, **options):
                return False
        except nats.errors.Error as error:
            assert "authorization violation" in str(error).lower(), error
            return True

    async def facts(self) -> list[dict[str, Any]]:
        """The facts about logins that the journal's inbox has."""
        bus = await JetStreamBus.connect(self.url, service="operator", nkey_seed=self.seed("operator"))
        try:
            found = await bus.read("INBOX_JOURNAL", "mesh.identity.journal.>", limit=2_000)
        finally:
            await bus.close()
        return [json.loads(one.body) for one in found]

    async def connections(self) -> list[dict[str, Any]]:
        _, body = await get_url(f"{self.server.plan.monitor_url}/connz?auth=true&limit=1024", 5)
        found: list[dict[str, Any]] = json.loads(body)["connections"]
        return found


def write_permissions(identity: Path, rules: policy.IdentityPolicy, open_lists: tuple[str, ...] = ()) -> None:
    permissions = json.loads(render.render_permissions(rules))
    for row in permissions["services"].values():
        row.update({name: [">"] for name in open_lists})
    (identity / "permissions.json").write_text(json.dumps(permissions))


@asynccontextmanager
async def running(
    folder: Path, *, replicas: int = 1, change: Any = lambda text: text, open_lists: tuple[str, ...] = ()
) -> AsyncIterator[World]:
    """A provisioned broker with replicas. change: edits the rendered accounts. open_lists: of the permissions of those
    that log in with tokens these name every subject."""
    rules, identity = policy.load_policy(kubernetes=True), folder / "identity"
    keys.ensure_keys(identity, rules)
    write_permissions(identity, rules, open_lists)
    logins = render.LoginKeys(*keys.login_keys(identity))
    accounts = change(render.render_accounts(rules, keys.public_nkeys(identity, rules), logins=logins))
    plan = ServerPlan(folder / "nats", free_port(), free_port(), "process")
    server = NatsServer(plan, accounts, os.environ)
    await server.start()
    world = World(folder, plan.url, Issuer(folder / "keys.json"))
    world.server = server
    try:
        await provision(plan.url, keys.nkey_seed(identity, policy.PROVISIONER))
        for number in range(replicas):
            await world.start(number)
        yield world
    finally:
        for number in list(world.replicas):
            await world.stop(number)
        await server.stop()
