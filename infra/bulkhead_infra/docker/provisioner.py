"""The one-shot containers that make what the others need: `keys`, `streams`, and what an operator asks for by hand.

In: volumes below /bulkhead/keys, one for each who gets secrets; the policy and tenants in the image. Out: each volume
holds what its owner needs and nothing else; the streams stand. Everything may be done again and then changes nothing.

keys          nkeys, signing keys, the CA and the broker's certificate, accounts, Redis's password, API keys
streams       streams and durables, under the provisioner's own key
credentials   print the local user's API keys as JSON
caller TENANT PERSON ROLE   make an API key for somebody, and print it; only its digest is kept
provider-key  take the model provider's API key from standard input; then restart model_gateway
rotate NAME   a new bus key for an identity; then reload the broker (HUP) and restart the service
upkeep        stay, and do what `bulkhead up` does now and then (infra/bulkhead_infra/docker/upkeep.py)
Exit codes: 0; 1 with what is wrong and what to do; 2 for wrong arguments.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import assert_never

from bulkhead.bus.port import BusError
from bulkhead_contracts.bounds import PARTITIONS
from bulkhead_infra.docker import upkeep
from bulkhead_infra.identity import callers, keys, policy, render, tls
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.nats.configuration import ServerPlan, write_configuration
from bulkhead_infra.nats.provision import ProvisionError, provision
from bulkhead_infra.nats.purge import PurgeError, retention_of
from bulkhead_infra.nats.stream_sizes import StoreTooSmall, stream_bounds
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.services import EVERY_SERVICE, SERVICES, Setting, services_given

KEYS = Path("/bulkhead/keys")
MASTER_FOLDER = "all"
IDENTITY = Path("/bulkhead/identity")
DATA = Path("/bulkhead/data")
"""Where the others have their own volume and their own data: paths in their containers."""
IDENTITIES_FILE = Path("/bulkhead/config/identities.yaml")
IDENTITIES_VARIABLE = "BULKHEAD_IDENTITIES_YAML"
"""Programs outside of one's own: a file of the folder that is mounted, or, in Kubernetes, its text."""
BROKER_NAMES = ("nats", "localhost", "127.0.0.1")
DEFAULT_TENANT = "demo"
OFFLINE_KEY = "offline"
PROVIDER_KEY = "openai_api_key"
MAX_KEY_CHARS = 4096
STORE_FILE = "store_gib"
BROKERS_FILE = "brokers"
BROKER = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
ONE_BROKER = "nats"
COMMANDS = ("keys", "streams", "credentials", "caller", "provider-key", "rotate", "upkeep")
COMMAND_ARGUMENTS: dict[str, tuple[str, ...]] = {"caller": ("TENANT", "PERSON", "ROLE"), "rotate": ("IDENTITY",)}
"""Arguments of commands that have any."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="provisioner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument(
        "more",
        nargs="*",
        help="for rotate: a service, operator, provisioner, backup or publisher; "
        "for caller: a tenant of the tenants file, a person, a role",
    )
    options = parser.parse_args(arguments)
    expected_arguments = COMMAND_ARGUMENTS.get(options.what, ())
    if len(options.more) != len(expected_arguments):
        parser.error(f"write it as `{' '.join((options.what, *expected_arguments))}`")
    try:
        match options.what:
            case "keys":
                make_keys()
            case "streams":
                asyncio.run(make_streams())
            case "credentials":
                print((KEYS / "operator" / "credentials.json").read_text())
            case "provider-key":
                store_provider_key(sys.stdin.read(MAX_KEY_CHARS).strip())
            case "caller":
                add_caller(*options.more)
            case "rotate":
                rotate_bus_key(*options.more)
            case "upkeep":
                retention = retention_of(os.environ.get("BULKHEAD_RETENTION") or "30d", ())
                asyncio.run(upkeep.run_upkeep(_broker_url(), IDENTITY, DATA, stream_layout(), retention))
    except (BusError, KeyFileError, ProvisionError, PurgeError, policy.IdentityPolicyError, ValueError) as error:
        print(f"{options.what}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"{options.what}: {error.filename or KEYS}: {error.strerror}; it must be a volume that user {os.getuid()} "
            "may write to, and `keys` must have run before",
            file=sys.stderr,
        )
        return 1
    return 0


def load_rules() -> policy.IdentityPolicy:
    """The package's identities and those of one's own. Raises IdentityPolicyError."""
    rules, text = policy.load_policy(), os.environ.get(IDENTITIES_VARIABLE, "")
    if not text and not IDENTITIES_FILE.is_file():
        return rules
    return policy.add_programs(rules, policy.load_programs(IDENTITIES_FILE, text), IDENTITIES_FILE)


def make_keys() -> None:
    """Everything secret, each to its owner."""
    rules = load_rules()
    master = KEYS / MASTER_FOLDER
    was_there = any(master.glob("*.nkey"))
    keys.ensure_keys(master, rules)
    brokers = _broker_names(master, was_there=was_there)
    further_names = tuple(filter(None, os.environ.get("BULKHEAD_BROKER_NAMES", "").split(","))) or BROKER_NAMES
    names = tuple(dict.fromkeys((*brokers, *further_names)))
    if tls.ensure_certificates(master / "tls", names):
        print(f"a certificate for {', '.join(names)} was made: a broker that runs must be restarted")
    ca = (master / "tls" / tls.CA_FILE).read_text()
    for service in SERVICES:
        keys.hand_over(
            master,
            service,
            KEYS / service,
            {tls.CA_FILE: ca, **secret_files_of(service, rules, KEYS, _redis_url_template())},
        )
    for identity in (policy.OPERATOR, policy.PROVISIONER):
        for owner in (identity, "upkeep"):
            keys.replace_file(KEYS / owner / f"{identity}.nkey", keys.nkey_seed(master, identity))
            keys.replace_file(KEYS / owner / tls.CA_FILE, ca)
    _write_broker_files(rules, brokers)
    keys.replace_file(KEYS / "redis" / "redis.conf", redis_configuration(redis_password(KEYS)))
    print(f"keys of {len(rules.identities)} identities are in place")


def _write_broker_files(rules: policy.IdentityPolicy, brokers: tuple[str, ...]) -> None:
    """The broker's configuration, as it finds it in its own container; the same for each of a cluster."""
    master, folder = KEYS / MASTER_FOLDER, KEYS / "nats"
    for name in (tls.BROKER_FILE, tls.BROKER_KEY_FILE, tls.CA_FILE):
        keys.replace_file(folder / name, (master / "tls" / name).read_text())
    durability = os.environ.get("BULKHEAD_DURABILITY", "power")
    if durability not in ("power", "process"):
        raise policy.IdentityPolicyError(f"BULKHEAD_DURABILITY is {durability!r}; it is power or process")
    plan = ServerPlan(
        folder=folder,
        port=4222,
        monitor_port=8222,
        durability="power" if durability == "power" else "process",
        host="0.0.0.0",  # noqa: S104
        store=DATA / "store",
        tls=(IDENTITY / tls.BROKER_FILE, IDENTITY / tls.BROKER_KEY_FILE),
        store_gib=_largest_store_gib(master),
        brokers=brokers,
        ca=IDENTITY / tls.CA_FILE,
    )
    write_configuration(plan, render.render_accounts(rules, keys.public_nkeys(master, rules), _shard_counts()))


def _broker_names(master: Path, *, was_there: bool) -> tuple[str, ...]:
    """BULKHEAD_BROKERS: names of all brokers of a cluster; () for one alone. Raises IdentityPolicyError where the mesh
    was made with others: a broker that becomes one of a cluster, or leaves it, does not take its streams along."""
    names = tuple(filter(None, os.environ.get("BULKHEAD_BROKERS", "").split(",")))
    if wrong := [name for name in names if not BROKER.fullmatch(name)]:
        raise policy.IdentityPolicyError(f"BULKHEAD_BROKERS: {wrong[0]!r} is no host name")
    if len(names) in (1, 2) or len(set(names)) != len(names):
        raise policy.IdentityPolicyError(
            f"BULKHEAD_BROKERS is {','.join(names)!r}: name three or five, each once, for a "
            "cluster that goes on when one is lost; or none, for one broker alone"
        )
    path, requested = master / BROKERS_FILE, ",".join(names) or ONE_BROKER
    before = path.read_text().strip() if path.exists() else ONE_BROKER if was_there else requested
    if before != requested:
        raise policy.IdentityPolicyError(
            f"this mesh was made with the broker(s) {before} and is to have {requested}: its streams "
            "would not come along. "
            "Start it as it was (with or without docker-compose.cluster.yml); or back it up and restore it into a "
            "project of its own: docs/how-to/containers.md, A cluster"
        )
    keys.write_new(path, requested)
    return names


def _redis_url_template() -> str:
    sentinels = os.environ.get("BULKHEAD_SENTINELS", "")
    return f"redis+sentinel://:{{}}@{sentinels}" if sentinels else "redis://:{}@redis:6379/0"


def secret_files_of(service: str, rules: policy.IdentityPolicy, root: Path, redis_place: str) -> dict[str, str]:
    """Files of a service beside its own keys: {file: text}. root: the folders of all; redis_place: Redis' address with
    `{}` for its password."""
    folder = root / service
    files: dict[str, str] = {}
    for setting in EVERY_SERVICE[service].environment:
        match setting:
            case Setting.REDIS:
                files["redis_url"] = redis_place.format(redis_password(root)) + "\n"
            case Setting.PROVIDER:
                # A key that a person gave stays.
                key = folder / PROVIDER_KEY
                files[key.name] = key.read_text() if key.exists() else OFFLINE_KEY
            case Setting.CALLERS:
                operator = root / "operator"
                callers.ensure_caller_keys(operator / "credentials.json", operator / "api_keys.json", DEFAULT_TENANT)
                files["api_keys.json"] = (operator / "api_keys.json").read_text()
                files["publishers.json"] = rules.outside_programs_json()
            case Setting.HTTP | Setting.TENANTS | Setting.LOGIC | Setting.POLICY | Setting.GATEWAY:
                pass  # No secret.
            case _:
                assert_never(setting)
    return files


def redis_password(root: Path) -> str:
    """Made once."""
    path = root / MASTER_FOLDER / "redis.password"
    keys.write_new(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def redis_configuration(password: str) -> str:
    return f"""\
# Written by the provisioner. Do not edit.
bind 0.0.0.0
port 6379
requirepass {password}
masterauth {password}
dir "{DATA}"
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


async def make_streams() -> None:
    """Streams and durables at BULKHEAD_NATS_URL."""
    folder = IDENTITY
    report = await provision(
        _broker_url(), keys.nkey_seed(folder, policy.PROVISIONER), stream_layout(), ca_file=folder / tls.CA_FILE
    )
    for change in report.changed:
        print(f"changed: {change}")
    for kept_bound in report.kept.values():
        print(kept_bound)
    print(f"{len(report.made)} streams and durables were made")


def _store_gib() -> int:
    """BULKHEAD_STORE_GIB: disk for the broker's streams; 0 where nobody says."""
    text = os.environ.get("BULKHEAD_STORE_GIB") or "0"
    if not text.isdigit():
        raise policy.IdentityPolicyError(f"BULKHEAD_STORE_GIB is {text!r}; write how many GiB of disk the broker has")
    try:
        stream_bounds([], int(text))
    except StoreTooSmall as error:
        raise policy.IdentityPolicyError(f"BULKHEAD_STORE_GIB: {error}") from error
    return int(text)


def _largest_store_gib(folder: Path) -> int:
    """The most that was ever said: a broker that has room for less than its streams may take does not start them, and
    it is a running broker that makes them smaller."""
    path, requested = folder / STORE_FILE, _store_gib()
    before = int(path.read_text()) if path.exists() else 0
    if requested > before:
        keys.replace_file(path, str(requested))
    return max(before, requested)


def stream_layout() -> Layout:
    """Streams and durables as the environment wants them. Raises IdentityPolicyError."""
    # No ranks where nobody says so: containers are replaced one by one, N beside an N-1 that knows no ranks.
    ranked = os.environ.get("BULKHEAD_RANKED") == "true"
    layout = Layout(_shard_counts(), _stream_replicas(), store_gib=_store_gib(), ranked=ranked)
    return layout.with_outside(load_rules())


def _stream_replicas() -> int:
    """BULKHEAD_REPLICAS: copies of each stream, one where nobody says."""
    text = os.environ.get("BULKHEAD_REPLICAS") or "1"
    if text not in ("1", "3", "5"):
        raise policy.IdentityPolicyError(f"BULKHEAD_REPLICAS is {text!r}; write 1, 3 or 5, at most one per broker")
    return int(text)


def _broker_url() -> str:
    return os.environ.get("BULKHEAD_NATS_URL", "tls://nats:4222")


def _shard_counts() -> dict[str, int]:
    """BULKHEAD_SHARDS_<SERVICE> for every inbox of which there are to be several."""
    counts = {}
    for service in SERVICES:
        name = f"BULKHEAD_SHARDS_{service.upper()}"
        text = os.environ.get(name) or "1"
        if not text.isdigit() or not 1 <= int(text) <= PARTITIONS:
            raise policy.IdentityPolicyError(f"{name} is {text!r}; write a number from 1 to {PARTITIONS}")
        if int(text) > 1:
            counts[service] = int(text)
    return counts


def store_provider_key(key: str) -> None:
    """Hand a provider's key to the services that call it."""
    if not key or any(part.isspace() for part in key):
        raise KeyFileError("no key came on standard input; write it as `... provisioner provider-key < key.txt`")
    for service in services_given(Setting.PROVIDER, SERVICES):
        keys.replace_file(KEYS / service / PROVIDER_KEY, key)
        print(f"{service} has the key; restart it")


def add_caller(tenant: str, person: str, role: str) -> None:
    """A key for one more person; the gateway reads the file again at the next request."""
    owners = ("operator", *services_given(Setting.CALLERS, SERVICES))
    print(json.dumps(callers.add_caller(tenant, person, role, [KEYS / owner for owner in owners])))


def rotate_bus_key(identity: str) -> None:
    """Replace one identity's bus key; the old one is worth nothing once the broker has reloaded."""
    rules = load_rules()
    if identity not in rules.identities:
        raise KeyFileError(f"no identity {identity}; there are {', '.join(rules.identities)}")
    (KEYS / MASTER_FOLDER / f"{identity}.nkey").unlink()
    make_keys()
    print(f"{identity} has a new key; reload the broker (kill -s HUP nats), then restart {identity}")


if __name__ == "__main__":
    sys.exit(main())
