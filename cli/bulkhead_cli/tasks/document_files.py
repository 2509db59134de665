"""The documents of `submit --docs` and `documents add`: which files are meant, and how each fared.

In: files and directories. Out: documents in the mesh, and their fates, one line each for people. A file that was named
must go in; of a directory what cannot be read is said and left out, so that one empty file does not hold up the rest.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh, Refused
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import CommandError, Exit, explain_refusal, print_json
from bulkhead_cli.screen import err
from bulkhead_contracts import bounds

UPLOADS_AT_ONCE = 4
SUFFIXES = frozenset(
    [".md", ".markdown", ".txt", ".text", ".html", ".htm", ".csv", ".tsv", ".rst", ".pdf", ".docx", ".xlsx"]
)
"""Suffixes of documents in a directory; a file that is named may have any."""
MAX_FILES = 2_000
MAX_NAMED = 8
"""Number of skipped files that a message names."""
UNFIT_STATUS = (413, 415, 422)
"""With these the gateway speaks of the document; every other refusal would meet the next one as well."""
NOT_ITS_FAULT = ("store_", "content_")
"""Codes that begin so speak of the store behind it."""


@dataclass(frozen=True, slots=True)
class DocumentUpload:
    """One file and its name in citations. named: the user wrote this very path."""

    path: Path
    name: str
    named: bool


def find_uploads(paths: list[Path]) -> list[DocumentUpload]:
    """The files that are meant, each once. Raises CommandError when there is nothing where something was
    named.
    """
    uploads: dict[Path, DocumentUpload] = {}
    relative: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(_walk_files(path, fit=True))
            if not inside:
                raise CommandError(
                    Exit.USAGE,
                    f"the directory {path} holds no documents",
                    f"put {', '.join(sorted(SUFFIXES))} files into it, or name others one by one; what begins "
                    "with a dot, and a mesh's own directory, is not read",
                )
            if len(inside) > MAX_FILES:
                raise CommandError(
                    Exit.USAGE,
                    f"the directory {path} holds {len(inside)} documents, over {MAX_FILES}",
                    "name a smaller directory; was this one meant?",
                )
            for file in inside:
                uploads.setdefault(file.resolve(), DocumentUpload(file, file.name, named=False))
                relative.setdefault(file.resolve(), file.relative_to(path))
        elif path.is_file():
            uploads[path.resolve()] = DocumentUpload(path, path.name, named=True)
        else:
            raise CommandError(Exit.USAGE, f"there is no document {path}", "check the path")
    return _with_unique_names(uploads, relative)


def _walk_files(folder: Path, *, fit: bool) -> Iterator[Path]:
    """Documents by their suffix, or the others. Hidden ones stay hidden at every depth; a mesh's data holds keys."""
    for root, folders, names in os.walk(folder):
        if {"mesh.json", "identity"} & set(names + folders) and "credentials.json" in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(root, name)
            for name in names
            if not name.startswith(".") and (Path(name).suffix.lower() in SUFFIXES) == fit
        )


def skipped_files(paths: list[Path]) -> list[tuple[Path, CommandError]]:
    """The visible files of each directory that are no documents by their suffix."""
    named = {path.resolve() for path in paths}
    skipped = []
    for path in paths:
        other_files = (
            (file for file in _walk_files(path, fit=False) if file.resolve() not in named) if path.is_dir() else ()
        )
        if names := sorted(file.relative_to(path).as_posix() for file in other_files):
            more_note = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            hint = f"of a directory {', '.join(sorted(SUFFIXES))} are added; name other files one by one"
            skipped.append(
                (
                    path,
                    CommandError(
                        Exit.USAGE, f"in {path}: {', '.join(names[:MAX_NAMED])}{more_note}", hint, name="not_documents"
                    ),
                )
            )
    return skipped


def print_skipped_files(paths: list[Path], *, as_lines: bool = False) -> None:
    """Say it on standard error; as_lines: as an event of a stream."""
    for path, problem in skipped_files(paths):
        if as_lines:
            print_json({"event": "document_skipped", "data": _skipped_row(str(path), problem)})
        else:
            err.print(f"skipped {problem} — {problem.hint}", style="yellow", markup=False)


def _with_unique_names(found: Mapping[Path, DocumentUpload], inside: Mapping[Path, Path]) -> list[DocumentUpload]:
    """Base names; where files share one, their paths in the directory that was named, and then as much of their whole
    paths as tells them apart: under one name, one would replace the other."""
    level = dict.fromkeys(found, 0)
    while True:
        names = {full_path: _name_at_level(full_path, inside.get(full_path), level[full_path]) for full_path in found}
        times = Counter(names.values())
        same = [
            full_path
            for full_path, name in names.items()
            if times[name] > 1 and level[full_path] <= len(full_path.parts)
        ]
        if not same:
            return [replace(upload, name=names[full_path]) for full_path, upload in found.items()]
        for full_path in same:
            level[full_path] += 1


def _name_at_level(whole: Path, relative: Path | None, level: int) -> str:
    if level == 0:
        return whole.name
    if relative is not None and level == 1:
        return relative.as_posix()
    count = level + (len(relative.parts) - 1 if relative is not None else 1)
    return "/".join(part.strip("/") for part in whole.parts[-count:] if part != "/")


Fate = dict[str, Any] | CommandError
"""The receipt of a document, or why it was left out."""


async def add_documents(
    mesh: Mesh,
    uploads: list[DocumentUpload],
    *,
    told: bool = True,
    on_fate: Callable[[DocumentUpload, Fate], None] | None = None,
) -> list[Fate]:
    """Put them in; returns how each fared. told: say it, too. Raises CommandError for a named file that does
    not fit, and when none of many fits; Unreachable.
    """
    room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def add_one(upload: DocumentUpload) -> Fate:
        async with room:
            return await _add_document(mesh, upload)

    fates = await asyncio.gather(*(add_one(upload) for upload in uploads))
    unfit = [
        fate for upload, fate in zip(uploads, fates, strict=True) if upload.named and isinstance(fate, CommandError)
    ]
    for upload, fate in zip(uploads, fates, strict=True):
        if fate in unfit:
            continue  # Ends the command; what else went in is in, and told.
        if on_fate is not None:
            on_fate(upload, fate)
        if told:
            _print_fate(upload, fate)
    if unfit:
        raise unfit[0]
    skipped = [fate for fate in fates if isinstance(fate, CommandError)]
    if skipped and len(skipped) == len(uploads):
        raise CommandError(
            Exit.REFUSED,
            f"none of {format_count(len(uploads), 'document')} could be read",
            "give a directory with text, Markdown, HTML, CSV, PDF, DOCX or XLSX files",
            name="no_documents",
        )
    return fates


async def _add_document(mesh: Mesh, upload: DocumentUpload) -> Fate:
    """The receipt, or why this file does not go in. Raises CommandError for what every other would meet as
    well.
    """
    try:
        if upload.path.stat().st_size > bounds.MAX_BLOB_BYTES:
            return CommandError(
                Exit.USAGE,
                f"{upload.path} is larger than {bounds.MAX_BLOB_BYTES:,} bytes",
                "split it into several documents",
                name="too_large",
            )
        return await mesh.add_document(upload.path, upload.name)
    except Refused as error:
        problem = explain_refusal(error, "" if str(error).startswith(upload.name) else str(upload.path))
        if error.status not in UNFIT_STATUS or error.code.startswith(NOT_ITS_FAULT):
            raise problem from error
        return problem
    except OSError as error:
        return CommandError(
            Exit.USAGE, f"{upload.path} cannot be read: {error.strerror}", "check its permissions", name="unreadable"
        )


def _print_fate(upload: DocumentUpload, fate: Fate) -> None:
    if isinstance(fate, CommandError):
        err.print(f"skipped {fate} — {fate.hint}", style="yellow", markup=False)
        return
    replaced = ", in place of the former document of this name" if fate.get("replaced_sha256") else ""
    sparse = fate.get("sparse_pages", 0)
    pages = format_count(fate.get("pages", 0), "page")
    scanned = f"; {sparse} of {pages} hold almost no text (scans need OCR)" if sparse else ""
    err.print(
        f"document {fate['name']}: {fate['outcome']}, {format_count(fate['chunks'], 'chunk')}{replaced}{scanned}",
        style="yellow" if replaced or scanned else "dim",
        markup=False,
    )


def unreadable_note(uploads: list[DocumentUpload], fates: list[Fate]) -> str:
    """Which documents were left out; "" when all went in."""
    names = [str(upload.path) for upload, fate in zip(uploads, fates, strict=True) if isinstance(fate, CommandError)]
    more_note = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    summary = f"{len(names)} of {format_count(len(uploads), 'document')} could not be read"
    return f"{summary}: {', '.join(names[:MAX_NAMED])}{more_note}" if names else ""


def fate_event(upload: DocumentUpload, fate: Fate) -> dict[str, Any]:
    """The fate as a line of a stream."""
    if isinstance(fate, CommandError):
        return {"event": "document_skipped", "data": _skipped_row(str(upload.path), fate)}
    return {"event": "document", "data": fate}


def as_json(uploads: list[DocumentUpload], fates: list[Fate], paths: list[Path]) -> dict[str, Any]:
    """All documents as JSON. paths: the arguments of the command."""
    pairs = list(zip(uploads, fates, strict=True))
    return {
        "documents": [fate for _, fate in pairs if not isinstance(fate, CommandError)],
        "skipped": [_skipped_row(str(upload.path), fate) for upload, fate in pairs if isinstance(fate, CommandError)]
        + [_skipped_row(str(path), problem) for path, problem in skipped_files(paths)],
    }


def _skipped_row(path: str, why: CommandError) -> dict[str, str]:
    return {"path": path, "code": why.name, "what": str(why), "hint": why.hint}
