"""`bulkhead documents`: which documents a tenant has, adding to them, deleting one.

In: a target, files, names. Out: text or JSON on standard output, and an exit code.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bulkhead.amounts import clock, counted
from bulkhead.client.errors import Refused
from bulkhead.validation_errors import meant
from bulkhead_cli.invocation import Group
from bulkhead_cli.options import Gateway
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, Work, out, print_json, print_whole, refusal
from bulkhead_cli.target import Target
from bulkhead_cli.tasks import document_files

DIGEST_CHARS = 12


documents_app = Group(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@documents_app.callback()
def top(at: Gateway) -> Work:
    """List, add or delete the documents that the tenant's tasks search.

    Without a subcommand, the documents are listed. A name stands for one document: another document of the same name
    replaces it, with a note. Earlier answers stay as they are.

    Examples: bulkhead documents · bulkhead documents add ./notes · bulkhead documents delete fares.md
    """
    return _list(at.target(), as_json=at.as_json)


@documents_app.command("list")
def show(at: Gateway) -> Work:
    """List the tenant's documents by name, each with its number of passages and versions and its date."""
    return _list(at.target(), as_json=at.as_json)


@documents_app.command("add")
def add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or directories of documents.")],
    at: Gateway,
) -> Work:
    """Add documents: text, Markdown, HTML, CSV or PDF.

    A document of the same name is replaced, unless its content is the same. Unreadable files of a directory are
    reported and left out.
    """
    return _add(at.target(may_make_key=True), paths, as_json=at.as_json)


@documents_app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in the output of `bulkhead documents list`.")],
    at: Gateway,
) -> Work:
    """Delete a document and all of its versions. It can only be added again, not restored."""
    return _delete(at.target(), name, as_json=at.as_json)


async def _list(gateway: Target, *, as_json: bool) -> None:
    async with gateway.mesh() as mesh:
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


async def _add(gateway: Target, paths: list[Path], *, as_json: bool) -> None:
    uploads = document_files.find(paths)
    async with gateway.mesh() as mesh:
        fates = await document_files.add(mesh, uploads, told=not as_json)
    if as_json:
        print_json(document_files.as_json(uploads, fates, paths))
    else:
        document_files.tell_passed_over(paths)


async def _delete(gateway: Target, name: str, *, as_json: bool) -> None:
    if not name.strip():
        raise Stop(Exit.USAGE, "the name is empty", "`bulkhead documents` lists the names")
    async with gateway.mesh() as mesh:
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
