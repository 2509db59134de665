"""The configuration of a nats-server, as text. Pure, but for writing it down.

In: a plan, rendered accounts. Out: two files in a folder of the server's own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bulkhead_infra.nats.stream_sizes import GIB

Durability = Literal["power", "process"]
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
SPARE_PERCENT = 5
"""For bounds that are made larger before others are made smaller. A bound takes no disk by itself."""
MAX_STORE_BYTES = 256 * GIB
"""At least; above the sum of all streams' own limits (bounds.py): those are what refuses, with a clear error."""
CONF_FILE = "nats-server.conf"
ACCOUNTS_FILE = "accounts.conf"
CLUSTER_PORT = 6222
BROKER_NAME_VARIABLE = "BULKHEAD_BROKER"
"""The environment variable by which each broker of a cluster knows its own name: all have the same files."""

LOOPBACK = "127.0.0.1"
ONE_MACHINE_PING_S = 10
"""Where no network can fall silent."""


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """Plan of where and how a server runs. power: fsync before every ack; process: survives a kill, not a power cut.

    folder: its files; store: where streams lie, else a folder in it. tls: certificate and key, both as the server
    finds them; without it it speaks in the clear, for one machine alone. store_gib: disk that the operator gives
    it, of which each stream gets its share (bounds.py); 0 where nobody said. brokers: host names of a whole
    cluster, which needs tls and ca, the CA's certificate: a broker is let in by a certificate of that CA.
    """

    folder: Path
    port: int
    monitor_port: int
    durability: Durability = "power"
    host: str = LOOPBACK
    monitor_host: str = LOOPBACK
    store: Path | None = None
    tls: tuple[Path, Path] | None = None
    store_gib: int = 0
    brokers: tuple[str, ...] = ()
    ca: Path | None = None

    @property
    def url(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Health and counts, for this machine only."""
        return f"http://{self.monitor_host}:{self.monitor_port}"


def write_configuration(plan: ServerPlan, accounts: str) -> Path:
    """Write the server's files into its folder; the path of the main one."""
    plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (plan.folder / ACCOUNTS_FILE).write_text(accounts, encoding="utf-8")
    path = plan.folder / CONF_FILE
    path.write_text(render_configuration(plan), encoding="utf-8")
    return path


def render_configuration(plan: ServerPlan) -> str:
    """The main file; the accounts are included."""
    sync = "sync_interval: always" if plan.durability == "power" else "# the server's own sync_interval"
    return f"""\
# Written by bulkhead_infra.nats.server at every start. Do not edit.
server_name: {f"${BROKER_NAME_VARIABLE}" if plan.brokers else "bulkhead"}
listen: "{plan.host}:{plan.port}"
http: "{plan.monitor_host}:{plan.monitor_port}"
max_payload: {MAX_PAYLOAD_BYTES}
# A silent partition is noticed within seconds; the default takes four minutes.
ping_interval: "{ONE_MACHINE_PING_S if plan.host == LOOPBACK else 2}s"
ping_max: 2
write_deadline: "5s"
jetstream {{
  store_dir: {_quote(plan.store or plan.folder / "store")}
  max_file_store: {max(MAX_STORE_BYTES, plan.store_gib * GIB * (100 + SPARE_PERCENT) // 100)}
  max_memory_store: 1048576
  {sync}
}}
{_render_tls(plan)}{_render_cluster(plan)}include "./{ACCOUNTS_FILE}"
"""


def _quote(value: Path | str) -> str:
    """A string in the language of the server, which takes letters of any script and has no `\\u`."""
    return json.dumps(str(value), ensure_ascii=False)


def _render_tls(plan: ServerPlan) -> str:
    if plan.tls is None:
        return ""
    certificate, key = map(_quote, plan.tls)
    # Not `auto`: that speaks in the clear after 50 ms, which a client on a busy machine takes to say hello.
    return f"""\
tls {{
  cert_file: {certificate}
  key_file: {key}
  handshake_first: true
}}
"""


def _render_cluster(plan: ServerPlan) -> str:
    if not plan.brokers:
        return ""
    if plan.tls is None or plan.ca is None:
        raise ValueError("brokers of a cluster speak to each other by TLS: a plan of one names tls and ca")
    certificate, key = map(_quote, plan.tls)
    routes = ", ".join(_quote(f"tls://{name}:{CLUSTER_PORT}") for name in plan.brokers)
    # Clients name all brokers themselves: the addresses that a broker has inside are in no certificate.
    return f"""\
cluster {{
  name: bulkhead
  listen: "{plan.host}:{CLUSTER_PORT}"
  no_advertise: true
  routes: [ {routes} ]
  tls {{
    cert_file: {certificate}
    key_file: {key}
    ca_file: {_quote(plan.ca)}
    verify: true
    timeout: 5
  }}
}}
"""
