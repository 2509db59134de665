"""`bulkhead documents`: which documents a tenant has, adding to them, deleting one.

In: a target, files, names. Out: text or JSON on standard output, and an exit code.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bulkhead.client.errors import Refused
from bulkhead.text.amounts import format_count, format_time
from bulkhead.text.validation_errors import suggest_name
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, Work, explain_refusal, print_json
from bulkhead_cli.screen import out, print_whole
from bulkhead_cli.target import GatewayTarget
from bulkhead_cli.tasks import document_files

DIGEST_CHARS = 12


documents_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@documents_app.callback()
def top(at: GatewayOptions) -> Work:
    """List, add or delete the documents that the tenant's tasks search.

    Without a subcommand, the documents are listed. A name stands for one document: another document of the same name
    replaces it, with a note. Earlier answers stay as they are.

    Examples: bulkhead documents · bulkhead documents add ./notes · bulkhead documents delete fares.md
    """
    return _print_documents(at.gateway_target(), as_json=at.as_json)


@documents_app.command("list")
def show(at: GatewayOptions) -> Work:
    """List the tenant's documents by name, each with its number of passages and versions and its date."""
    return _print_documents(at.gateway_target(), as_json=at.as_json)


@documents_app.command("add")
def add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or directories of documents.")],
    at: GatewayOptions,
) -> Work:
    """Add documents: text, Markdown, HTML, CSV, PDF, DOCX or XLSX.

    A document of the same name is replaced, unless its content is the same. Unreadable files of a directory are
    reported and left out.
    """
    return _add_documents(at.gateway_target(may_make_key=True), paths, as_json=at.as_json)


@documents_app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in the output of `bulkhead documents list`.")],
    at: GatewayOptions,
) -> Work:
    """Delete a document and all of its versions. It can only be added again, not restored."""
    return _delete_document(at.gateway_target(), name, as_json=at.as_json)


async def _print_documents(gateway: GatewayTarget, *, as_json: bool) -> None:
    async with gateway.mesh_client() as mesh:
        rows = await mesh.documents()
    if as_json:
        print_json({"documents": rows, "next": None})
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
            format_time(row["ingested_unix_ms"]),
            escape(row["media_type"]),
            row["sha256"][:DIGEST_CHARS],
        )
    print_whole(table)


async def _add_documents(gateway: GatewayTarget, paths: list[Path], *, as_json: bool) -> None:
    uploads = document_files.find_uploads(paths)
    async with gateway.mesh_client() as mesh:
        fates = await document_files.add_documents(mesh, uploads, told=not as_json)
    if as_json:
        print_json(document_files.as_json(uploads, fates, paths))
    else:
        document_files.print_skipped_files(paths)


async def _delete_document(gateway: GatewayTarget, name: str, *, as_json: bool) -> None:
    if not name.strip():
        raise CommandError(Exit.USAGE, "the name is empty", "`bulkhead documents` lists the names")
    async with gateway.mesh_client() as mesh:
        try:
            deleted = await mesh.delete_document(name)
        except Refused as error:
            if error.code != "not_found" or not (
                near := suggest_name(name, [row["name"] for row in await mesh.documents()])
            ):
                raise
            raise CommandError(Exit.USAGE, f"{error}{near}", explain_refusal(error).hint, name=error.code) from error
    if as_json:
        print_json(deleted)
    else:
        out.print(f"deleted {name} ({format_count(deleted['versions'], 'version')})", markup=False)
