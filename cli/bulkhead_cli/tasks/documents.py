"""`bulkhead documents`: which documents a tenant has, what they hold, adding to them, searching them, deleting one.

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
from bulkhead_contracts import bounds
from bulkhead_contracts.retrieval import StoredChunk

DIGEST_CHARS = 12


documents_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@documents_app.callback()
def top(at: GatewayOptions) -> Work:
    """List, show, search, add or delete the documents that the tenant's tasks search.

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
    reason: Annotated[str, typer.Option(help="The reason, which is kept with the request.")] = "",
) -> Work:
    """Delete a document and all of its versions. It can only be added again, not restored."""
    return _delete_document(at.gateway_target(), name, reason, as_json=at.as_json)


@documents_app.command("show")
def show_chunks(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in the output of `bulkhead documents list`.")],
    at: GatewayOptions,
    start: Annotated[int, typer.Option(min=0, help="Character of the text to begin at.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=bounds.MAX_LISTED_CHUNKS, help="Chunks to show.")] = 20,
) -> Work:
    """Show a document's chunks with their places, and the pages that could not be read, with the reasons."""
    return _show_chunks(at.gateway_target(), name, start, limit, as_json=at.as_json)


@documents_app.command("search")
def search(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Words that documents should have.")],
    at: GatewayOptions,
    k: Annotated[int, typer.Option("-k", min=1, max=bounds.MAX_PASSAGES, help="Chunks to show at most.")] = 8,
) -> Work:
    """Show what a task of yours would find for a question: chunks with score, document and place. It costs nothing.

    Example: bulkhead documents search "notice period"
    """
    return _search_documents(at.gateway_target(), question, k, as_json=at.as_json)


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


async def _show_chunks(gateway: GatewayTarget, name: str, start: int, limit: int, *, as_json: bool) -> None:
    async with gateway.mesh_client() as mesh:
        page = await mesh.document_chunks(name, start=start, limit=limit)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    document = page.document
    out.print(
        f"{document.name}: {format_count(document.chunks, 'passage')}, {format_count(page.chars, 'character')}, "
        f"added {format_time(document.ingested_unix_ms)}",
        markup=False,
    )
    if document.sparse_pages:
        out.print(f"{document.sparse_pages} of {document.pages} pages are lost to the search:", markup=False)
        for lost in page.lost_pages:
            reason = " ".join(lost.reason.split())
            out.print(f"  page {lost.page}: {lost.code.replace('_', ' ')}: {reason}", markup=False)
    for chunk in page.chunks:
        _print_chunk(f"{chunk.start} to {chunk.end}", chunk)
    if page.next is not None:
        out.print(f"more follows: --start {page.next}", markup=False)


async def _search_documents(gateway: GatewayTarget, question: str, k: int, *, as_json: bool) -> None:
    if not question.strip():
        raise CommandError(Exit.USAGE, "the question is empty", "ask with words that documents should have")
    async with gateway.mesh_client() as mesh:
        page = await mesh.search_documents(question, k=k)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    if not page.chunks:
        out.print("no document has these words; `bulkhead documents` lists what there is", markup=False)
    for rank, chunk in enumerate(page.chunks, 1):
        _print_chunk(f"{rank}. {chunk.document}, {chunk.start} to {chunk.end}, score {chunk.score:.3f}", chunk)
    if page.pruned:
        out.print(f"{format_count(page.pruned, 'other')} match about as well: -k shows more", markup=False)
    if page.note:
        out.print(page.note, markup=False)


def _print_chunk(place: str, chunk: StoredChunk) -> None:
    # Indented, and headings on one line: a document's text must not pass for a line of ours.
    title = f" ({' '.join(chunk.title.split())})" if chunk.title else ""
    out.print(f"\n{place}{title}", markup=False)
    for line in chunk.text.splitlines():
        out.print(f"    {line}", markup=False)


async def _delete_document(gateway: GatewayTarget, name: str, reason: str, *, as_json: bool) -> None:
    if not name.strip():
        raise CommandError(Exit.USAGE, "the name is empty", "`bulkhead documents` lists the names")
    async with gateway.mesh_client() as mesh:
        try:
            deleted = await mesh.delete_document(name, reason)
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
