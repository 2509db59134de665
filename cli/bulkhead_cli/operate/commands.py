"""`bulkhead up`, `backup`, `restore` and `render`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import BrokerOptions, Data, OwnConfig
from bulkhead_cli.output import Work
from bulkhead_cli.target import DEFAULT_DATA

Nats = Annotated[
    str, typer.Option("--nats", metavar="URL", help="Address of a broker, instead of --data; needs --identity.")
]
Identity = Annotated[
    Path | None, typer.Option("--identity", metavar="DIR", help="With --nats: folder with the keys of the mesh.")
]
Documents = Annotated[
    Path | None,
    typer.Option("--documents", metavar="DIR", help="With --nats: folder of rag's documents (BULKHEAD_RAG_DIR)."),
]
Callers = Annotated[
    Path | None,
    typer.Option("--callers", metavar="DIR", help="With --nats: folder of api_keys.json; keeps people's API keys."),
]
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--keys-passphrase", metavar="FILE", help="File with the passphrase, on one line, that encrypts the keys."
    ),
]
CheckOnly = Annotated[bool, typer.Option("--check", help="Read the file and compare every digest; restore nothing.")]
RestoreShards = Annotated[
    list[str] | None,
    typer.Option(
        "--shards",
        metavar="SERVICE=N",
        help="New number of shards of a service's inbox; may be repeated.",
        show_default="as in the backup",
    ),
]

Scale = Annotated[
    list[str] | None,
    typer.Option("--scale", metavar="SERVICE=N", help="Number of replicas of a service; may be repeated."),
]
Durability = Annotated[
    str,
    typer.Option(
        "--durability",
        metavar="power|process",
        help="power: every message is on disk before it is acknowledged. process: faster; messages survive kills of "
        "processes, but not a power cut.",
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the gateway; 0 takes a free one.")]
DoorsPort = Annotated[
    int | None,
    typer.Option(
        "--doors-port",
        min=0,
        max=65535,
        envvar="BULKHEAD_DOORS_PORT",
        show_default="8090, or a free one when that is taken",
        help="Port that outside agents call.",
    ),
]
UpNats = Annotated[
    str,
    typer.Option(
        "--nats",
        metavar="URL",
        envvar="BULKHEAD_NATS_URL",
        help="Address of your broker, used instead of an own one. Addresses of a cluster are separated by commas.",
    ),
]
UpMonitor = Annotated[
    str,
    typer.Option(
        "--nats-monitor",
        metavar="URL",
        help="With --nats: monitoring address of the broker, for [bold]bulkhead doctor[/bold].",
    ),
]
UpRedis = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar="BULKHEAD_REDIS_URL",
        help="Address of your Redis or Valkey, used instead of an own one. The environment variable keeps its "
        "password off the command line.",
    ),
]
UpTenants = Annotated[
    Path | None,
    typer.Option(
        "--tenants",
        metavar="FILE",
        envvar="BULKHEAD_TENANTS_FILE",
        help="File with your tenants: tools, limits and quotas, in the format of "
        "infra/bulkhead_infra/identity/tenants.yaml.",
        show_default="the tenants demo and acme, which come with the mesh",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="DIR",
        help="Folder of your identities, tenants, policies and tools (docs/how-to/files-of-your-own.md).",
        show_default="that of the mesh in --data, or BULKHEAD_CONFIG_DIR",
    ),
]
Replicas = Annotated[
    int, typer.Option("--replicas", min=1, max=5, help="With --nats: number of copies of each stream in the cluster.")
]
Shards = Annotated[
    list[str] | None,
    typer.Option(
        "--shards",
        metavar="SERVICE=N",
        help="Number of shards of a service's inbox, set at the first start of a mesh and remembered. Choose the "
        "largest number of replicas that you expect: each replica gets a shard of its own. May be repeated.",
    ),
]
StoreGib = Annotated[
    int,
    typer.Option(
        "--store-gib",
        min=0,
        metavar="N",
        envvar="BULKHEAD_STORE_GIB",
        help="Disk space for the broker's streams in GiB; remembered. `python -m bulkhead_infra.capacity "
        "--tasks-per-day N` "
        "computes how much a load needs.",
        show_default="the remembered value; at the first start, enough for a laptop",
    ),
]
DoctorRedis = Annotated[
    str, typer.Option("--redis", metavar="URL", envvar="BULKHEAD_REDIS_URL", help="Address of the Redis of the mesh.")
]
Otlp = Annotated[
    str,
    typer.Option(
        "--otlp", metavar="URL", envvar="BULKHEAD_OTLP_ENDPOINT", help="Endpoint to which the mesh sends its traces."
    ),
]

OnCluster = Annotated[
    bool,
    typer.Option(
        "--cluster",
        help="Look at a mesh in Kubernetes through kubectl, which only reads, instead of the one in --data.",
    ),
]
Context = Annotated[
    str,
    typer.Option(
        "--context", metavar="NAME", help="With --cluster: context of the kubeconfig.", show_default="the current one"
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", metavar="NAME", help="With --cluster: namespace of the mesh.")]

render_app = CommandGroup(no_args_is_help=True)


@render_app.callback()
def render() -> None:
    """Write configuration for a broker or a monitoring of your own."""


def up(
    data: Data = DEFAULT_DATA,
    scale: Scale = None,
    durability: Durability = "power",
    port: Port = 8080,
    doors_port: DoorsPort = None,
    nats: UpNats = "",
    nats_monitor: UpMonitor = "",
    redis: UpRedis = "",
    replicas: Replicas = 1,
    store_gib: StoreGib = 0,
    shards: Shards = None,
    tenants: UpTenants = None,
    config: OwnConfig = None,
) -> Work:
    """Start a mesh and keep it running in the foreground.

    Ctrl-C drains the mesh and stops it; a second Ctrl-C stops it at once. The state in DIR survives restarts and kills.
    --nats and --redis use a broker or Redis of yours; the broker must include the output of [bold]bulkhead render
    accounts[/bold]. Traces go to BULKHEAD_OTLP_ENDPOINT when it is set.
    """
    from bulkhead_cli.operate.up import keep_running

    external_services = {
        "nats_url": nats,
        "nats_monitor_url": nats_monitor,
        "redis_url": redis,
        "replicas": replicas,
        "store_gib": store_gib,
    }
    if doors_port is None and port == 0:
        doors_port = 0  # Who takes any port for one takes any for the other.
    return keep_running(
        data, scale or [], durability, (port, doors_port), external_services, shards or [], tenants, config
    )


@render_app.command("accounts")
def render_accounts(
    at: BrokerOptions,
    to: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; without it, standard output.")
    ] = None,
    config: Config = None,
) -> Work:
    """Write the accounts of a nats-server for this mesh: rights by public key.

    Creates the mesh's keys in DIR/identity when there are none; the output contains public keys only. Put the output
    beside the server's configuration, add [bold]include "accounts.conf"[/bold] to it, and reload the server after
    every change.
    """
    from bulkhead_cli.operate import render as rendering

    return rendering.write_accounts(at.data, to, config, as_json=at.as_json)


@render_app.command("monitoring")
def render_monitoring(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write to; made when it is not there.")],
    at: BrokerOptions,
    runbooks: Annotated[
        str,
        typer.Option(
            "--runbooks",
            metavar="URL",
            help="Address of the page with the runbooks, which alerts name.",
            show_default="docs/how-to/runbooks.md",
        ),
    ] = "",
) -> Work:
    """Write rules, alerts, dashboards and collector configuration for Prometheus and Grafana.

    The scrape configuration reads the processes of the mesh in DIR, which need not run. Files of an earlier version are
    replaced; other files in FOLDER stay.

    Example: bulkhead render monitoring ./monitoring --runbooks https://wiki.example/bulkhead
    """
    from bulkhead_cli.operate import render as rendering

    return rendering.write_monitoring(at.data, folder, runbooks, as_json=at.as_json)


def backup(
    to: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="New file, with a dot in its name; or an existing folder, in which the file is named by the time.",
        ),
    ],
    at: BrokerOptions,
    nats: Nats = "",
    identity: Identity = None,
    documents: Documents = None,
    callers: Callers = None,
    keys_passphrase: Passphrase = None,
    config: Config = None,
) -> Work:
    """Back up a running or stopped mesh to one file.

    The file contains every stream with its sequences, the positions of all consumers, timers, documents and the digests
    of API keys, each with a SHA-256 digest. Content is not encrypted: the file has mode 0600 and needs the same care as
    the documents. It contains the keys of the mesh only with a passphrase; without them, tasks in flight cannot go on
    after a restore.

    Examples: bulkhead backup /backups · bulkhead backup mesh.bulkhead --keys-passphrase ~/.mesh-passphrase
    """
    from bulkhead_cli.operate import backup as backing

    where = backing.MeshLocation(at.data, nats, identity, documents, callers=callers, config=config)
    return backing.back_up(where, to, keys_passphrase, as_json=at.as_json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="File written by `bulkhead backup`.")],
    at: BrokerOptions,
    nats: Nats = "",
    identity: Identity = None,
    documents: Documents = None,
    replicas: Replicas = 1,
    callers: Callers = None,
    shards: RestoreShards = None,
    keys_passphrase: Passphrase = None,
    check: CheckOnly = False,
    config: Config = None,
) -> Work:
    """Restore a mesh from a backup.

    The target is an empty directory (--data) or a broker without streams (--nats). The whole file is checked before
    anything is restored. Put the folder identity/ in place first, or decrypt the keys in the file with
    --keys-passphrase: with new keys, tasks in flight fail. Redis is filled from the facts in the backup. The restored
    mesh knows nothing of later events; a tool with idempotency keys answers repeated calls as it did the first time.
    """
    from bulkhead_cli.operate import backup as backing
    from bulkhead_cli.operate.up import parse_shards

    where = backing.MeshLocation(at.data, nats, identity, documents, replicas, callers, config)
    divided = parse_shards(shards or [])
    return backing.restore_mesh(where, source, keys_passphrase, check=check, as_json=at.as_json, shards=divided)
