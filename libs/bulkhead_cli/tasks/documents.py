"""`bulkhead documents`: which documents a tenant has, adding to them, deleting one.

In: a target, files, names. Out: text or JSON on standard output, and an exit code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bulkhead.amounts import clock, counted
from bulkhead.client.errors import Refused
from bulkhead.validation_errors import meant
from bulkhead_cli import target
from bulkhead_cli.options import ApiKey, Data, Json, SubData, Tenant, Url
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, out, print_json, print_whole, refusal, run
from bulkhead_cli.tasks import document_files

DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class Said:
    """The options, which may stand before a subcommand as well as after it."""

    data: Path
    url: str
    api_key: str
    tenant: str
    as_json: bool

    def with_(self, data: Path | None, url: str, api_key: str, tenant: str, as_json: bool) -> "Said":
        """Options after the subcommand override those before it."""
        return Said(
            data or self.data, url or self.url, api_key or self.api_key, tenant or self.tenant, as_json or self.as_json
        )

    def target(self, *, may_make_key: bool = False) -> target.Target:
        """The mesh that is meant; ends the command when it cannot be told."""
        return target.required(self.data, self.url, self.api_key, self.tenant, may_make_key=may_make_key)


documents_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@documents_app.callback()
def top(
    context: typer.Context,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List, add or delete the documents that the tenant's tasks search.

    Without a subcommand, the documents are listed. A name stands for one document: another document of the same name
    replaces it, with a note. Earlier answers stay as they are.

    Examples: bulkhead documents · bulkhead documents add ./notes · bulkhead documents delete fares.md
    """
    context.obj = Said(data, url, api_key, tenant, as_json)
    if context.invoked_subcommand is None:
        run(_list(context.obj.target(), as_json=as_json))


@documents_app.command("list", epilog=EXIT_CODES)
def show(
    context: typer.Context,
    data: SubData = None,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List the tenant's documents by name, each with its number of passages and versions and its date."""
    said = context.obj.with_(data, url, api_key, tenant, as_json)
    run(_list(said.target(), as_json=said.as_json))


@documents_app.command("add", epilog=EXIT_CODES)
def add(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or directories of documents.")],
    data: SubData = None,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Add documents: text, Markdown, HTML, CSV or PDF.

    A document of the same name is replaced, unless its content is the same. Unreadable files of a directory are
    reported and left out.
    """
    said = context.obj.with_(data, url, api_key, tenant, as_json)
    run(_add(said.target(may_make_key=True), paths, as_json=said.as_json))


@documents_app.command("delete", epilog=EXIT_CODES)
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in the output of `bulkhead documents list`.")],
    data: SubData = None,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Delete a document and all of its versions. It can only be added again, not restored."""
    said = context.obj.with_(data, url, api_key, tenant, as_json)
    run(_delete(said.target(), name, as_json=said.as_json))


async def _list(found: target.Target, *, as_json: bool) -> None:
    async with found.mesh() as mesh:
        rows = await mesh.documents()
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("no documents yet; `bulkhead documents add PATH` adds some", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("document", "passages", "versions", "since", "type", "digest"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("passages", "versions") else "left")
    for row in rows:
        table.add_row(
            escape(row["name"]),
            str(row["chunks"]),
            str(row["versions"]),
            clock(row["ingested_unix_ms"]),
            escape(row["media_type"]),
            row["sha256"][:DIGEST_CHARS],
        )
    print_whole(table)


async def _add(found: target.Target, paths: list[Path], *, as_json: bool) -> None:
    uploads = document_files.find(paths)
    async with found.mesh() as mesh:
        fates = await document_files.add(mesh, uploads, told=not as_json)
    if as_json:
        print_json(document_files.as_json(uploads, fates, paths))
    else:
        document_files.tell_passed_over(paths)


async def _delete(found: target.Target, name: str, *, as_json: bool) -> None:
    if not name.strip():
        raise Stop(Exit.USAGE, "the name is empty", "`bulkhead documents` lists the names")
    async with found.mesh() as mesh:
        try:
            gone = await mesh.delete_document(name)
        except Refused as error:
            if error.code != "not_found" or not (near := meant(name, [row["name"] for row in await mesh.documents()])):
                raise
            raise Stop(Exit.USAGE, f"{error}{near}", refusal(error).hint, name=error.code) from error
    if as_json:
        print_json(gone)
    else:
        out.print(f"deleted {name} ({counted(gone['versions'], 'version')})", markup=False)
