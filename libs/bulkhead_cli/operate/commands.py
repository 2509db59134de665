"""The commands of whoever operates a mesh: what each takes. `main` hangs them into `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli import target
from bulkhead_cli.options import Data, Json
from bulkhead_cli.output import run

Nats = Annotated[
    str, typer.Option("--nats", metavar="URL", help="A broker's address in place of --data; needs --identity.")
]
Identity = Annotated[
    Path | None, typer.Option("--identity", metavar="DIR", help="With --nats: the folder with the keys of this mesh.")
]
Documents = Annotated[
    Path | None,
    typer.Option("--documents", metavar="DIR", help="With --nats: where rag keeps its documents (BULKHEAD_RAG_DIR)."),
]
Callers = Annotated[
    Path | None,
    typer.Option(
        "--callers", metavar="DIR", help="With --nats: where api_keys.json lies, so that people keep their API keys."
    ),
]
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--keys-passphrase",
        metavar="FILE",
        help="File with a passphrase, on one line, under which the keys are sealed.",
    ),
]

UpNats = Annotated[
    str,
    typer.Option(
        "--nats",
        metavar="URL",
        envvar="BULKHEAD_NATS_URL",
        help="Use this broker (several of a cluster: by commas) in place of one of the mesh's own.",
    ),
]
UpMonitor = Annotated[
    str,
    typer.Option(
        "--nats-monitor", metavar="URL", help="With --nats: its monitoring address, for [bold]bulkhead doctor[/bold]."
    ),
]
UpRedis = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar="BULKHEAD_REDIS_URL",
        help="Use this Redis or Valkey in place of one of the "
        "mesh's own. The environment variable keeps its password off the command line.",
    ),
]
UpTenants = Annotated[
    Path | None,
    typer.Option(
        "--tenants",
        metavar="FILE",
        envvar="BULKHEAD_TENANTS_FILE",
        help="Your tenants: their tools, ceilings and quotas, as in infra/bulkhead_infra/identity/tenants.yaml.",
        show_default="the tenants demo and acme, which come with the mesh",
    ),
]
Replicas = Annotated[
    int, typer.Option("--replicas", min=1, max=5, help="With --nats: copies of each stream in the cluster.")
]
Shards = Annotated[
    list[str] | None,
    typer.Option(
        "--shards",
        metavar="SERVICE=N",
        help="Divide a service's inbox, when the mesh is first started: as many shards as "
        "replicas are to come, so that each has one of its own. Remembered; may be repeated.",
    ),
]
StoreGib = Annotated[
    int,
    typer.Option(
        "--store-gib",
        min=0,
        metavar="N",
        envvar="BULKHEAD_STORE_GIB",
        help="Disk for the broker's streams, of which each "
        "gets its share; remembered. `python -m bulkhead_infra.capacity --tasks-per-day N` tells how much so many "
        "tasks need.",
        show_default="what it was given before; at first, enough for a laptop",
    ),
]
RestoreShards = Annotated[
    list[str] | None,
    typer.Option(
        "--shards",
        metavar="SERVICE=N",
        help="Divide a service's inbox otherwise than it was; may be repeated.",
        show_default="as in the backup",
    ),
]
DoctorRedis = Annotated[
    str, typer.Option("--redis", metavar="URL", envvar="BULKHEAD_REDIS_URL", help="The Redis that the mesh was given.")
]
Otlp = Annotated[
    str, typer.Option("--otlp", metavar="URL", envvar="BULKHEAD_OTLP_ENDPOINT", help="Where the mesh sends its traces.")
]

render_app = typer.Typer(help="Write what others must include.", no_args_is_help=True)


@render_app.callback()
def render() -> None:
    """Write what others must include."""


@render_app.command("accounts")
def render_accounts(
    data: Data = target.DEFAULT_DATA,
    to: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; without it, standard output.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The accounts block of a nats-server that this mesh is to use: who may say what, by public key.

    Makes the mesh's keys in DIR/identity where there are none; the output holds none of them. Put it beside the
    server's configuration, write [bold]include "accounts.conf"[/bold] there, and reload it after every change.
    """
    from bulkhead_cli.operate import render as rendering

    run(rendering.accounts(data, to, as_json=as_json))


def backup(
    to: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="The new file, whose name has a dot; or a folder that is there: in it the file is named by the time.",
        ),
    ],
    data: Data = target.DEFAULT_DATA,
    nats: Nats = "",
    identity: Identity = None,
    documents: Documents = None,
    callers: Callers = None,
    keys_passphrase: Passphrase = None,
    as_json: Json = False,
) -> None:
    """Copy a mesh into one file, while it runs or when it is stopped.

    In it: every stream with its sequences, the positions of all consumers, timers, documents and the digests of API
    keys, with sha256 digests of all of it. It holds content in the clear: mode 0600, treat it like the documents. Keys
    are not in it unless you give a passphrase; without them tasks that were in flight cannot go on after a restore.

    Examples: bulkhead backup /backups · bulkhead backup mesh.bulkhead --keys-passphrase ~/.mesh-passphrase
    """
    from bulkhead_cli.operate import backup as backing

    where = backing.Where(data, nats, identity, documents, callers=callers)
    run(backing.back_up(where, to, keys_passphrase, as_json=as_json))


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `bulkhead backup` made.")],
    data: Data = target.DEFAULT_DATA,
    nats: Nats = "",
    identity: Identity = None,
    documents: Documents = None,
    replicas: Replicas = 1,
    callers: Callers = None,
    shards: RestoreShards = None,
    keys_passphrase: Passphrase = None,
    check: Annotated[bool, typer.Option("--check", help="Read it and compare every digest; restore nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a mesh of a backup, in an empty directory (--data) or on a broker without streams (--nats).

    The file is read to its end before anything is made. Put the folder identity/ there first, or open the sealed keys
    with --keys-passphrase: with new keys, tasks that were in flight fail. Money is what the facts in it say: Redis is
    filled from them. What happened after the backup is unknown to the restored mesh; a tool that honours idempotency
    keys answers it as it did the first time.
    """
    from bulkhead_cli.operate import backup as backing
    from bulkhead_cli.operate.up import parse_shards

    async def do() -> None:
        where = backing.Where(data, nats, identity, documents, replicas, callers)
        await backing.restore(
            where, source, keys_passphrase, check=check, as_json=as_json, shards=parse_shards(shards or [])
        )

    run(do())
