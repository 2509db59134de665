"""The documents of `submit --docs`: which files are meant, and how each fared.

In: files and directories. Out: documents in the mesh, one line each. A file that was named must go in; of a directory
what cannot be read is said and left out, so that one empty file does not hold up the rest.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.cli.output import Exit, Stop, counted, err, print_json, refusal
from bulkhead.client import Mesh, Refused
from bulkhead_contracts import limits

UPLOADS_AT_ONCE = 4
SUFFIXES = frozenset({".md", ".markdown", ".txt", ".text", ".html", ".htm", ".csv", ".tsv", ".rst", ".pdf"})
"""Of what is taken from a directory; a file that is named may have any."""
MAX_FILES = 2_000
UNFIT_STATUS = (413, 415, 422)
"""With these the gateway speaks of the document; every other refusal would meet the next one as well."""
NOT_ITS_FAULT = ("store_", "content_")
"""Codes that begin so speak of the store behind it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file and its name in citations. named: the user wrote this very path."""

    path: Path
    name: str
    named: bool


def find(paths: list[Path]) -> list[Upload]:
    """The files that are meant, each once. Raises Stop when there is nothing where something was named."""
    found: dict[Path, Upload] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(_readable(path))
            if not inside:
                raise Stop(Exit.USAGE, f"the directory {path} holds no documents",
                           f"put {', '.join(sorted(SUFFIXES))} files into it, or name others one by one; what begins "
                           "with a dot, and a mesh's own directory, is not read")
            if len(inside) > MAX_FILES:
                raise Stop(Exit.USAGE, f"the directory {path} holds {len(inside)} documents, over {MAX_FILES}",
                           "name a smaller directory; was this one meant?")
            for one, name in zip(inside, _names(path, inside), strict=True):
                found.setdefault(one.resolve(), Upload(one, name, named=False))
        elif path.is_file():
            found[path.resolve()] = Upload(path, path.name, named=True)
        else:
            raise Stop(Exit.USAGE, f"there is no document {path}", "check the path given with --docs")
    return list(found.values())


def _readable(folder: Path) -> Iterator[Path]:
    """Documents by their suffix. Hidden ones stay hidden at every depth, and a mesh's data holds keys."""
    for root, folders, names in os.walk(folder):
        if {"mesh.json", "identity"} & set(names + folders) and "credentials.json" in names:
            folders.clear()
            continue
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        yield from (Path(root, one) for one in names
                    if not one.startswith(".") and Path(one).suffix.lower() in SUFFIXES)


def _names(folder: Path, inside: list[Path]) -> list[str]:
    """Base names; where two files share one, their paths in the directory: the second would replace the first."""
    times = Counter(one.name for one in inside)
    return [one.name if times[one.name] == 1 else one.relative_to(folder).as_posix() for one in inside]


async def add(mesh: Mesh, uploads: list[Upload], *, as_json: bool) -> None:
    """Put them in. Raises Stop for a named file that does not fit, and when none of many fits; Unreachable."""
    room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def one(upload: Upload) -> dict[str, Any] | Stop:
        async with room:
            return await _add(mesh, upload)

    fates = await asyncio.gather(*(one(upload) for upload in uploads))
    for upload, fate in zip(uploads, fates, strict=True):
        _tell(upload, fate, as_json=as_json)
    skipped = [fate for fate in fates if isinstance(fate, Stop)]
    if skipped and len(skipped) == len(uploads):
        raise Stop(Exit.REFUSED, f"none of {counted(len(uploads), 'document')} could be read",
                   "give a directory with text, Markdown, HTML, CSV or PDF files", name="no_documents")


async def _add(mesh: Mesh, upload: Upload) -> dict[str, Any] | Stop:
    """The receipt, or why this file of a directory was left out."""
    try:
        if upload.path.stat().st_size > limits.MAX_BLOB_BYTES:
            raise Stop(Exit.USAGE, f"{upload.path} is larger than {limits.MAX_BLOB_BYTES:,} bytes",
                       "split it into several documents", name="too_large")
        return await mesh.add_document(upload.path, upload.name)
    except Refused as error:
        problem = refusal(error, str(upload.path))
        if error.status not in UNFIT_STATUS or error.code.startswith(NOT_ITS_FAULT) or upload.named:
            raise problem from error
    except OSError as error:
        problem = Stop(Exit.USAGE, f"{upload.path} cannot be read: {error.strerror}", "check its permissions",
                       name="unreadable")
        if upload.named:
            raise problem from error
    except Stop as error:
        problem = error
        if upload.named:
            raise
    return problem


def _tell(upload: Upload, fate: dict[str, Any] | Stop, *, as_json: bool) -> None:
    if isinstance(fate, Stop):
        if as_json:
            told = {"path": str(upload.path), "code": fate.name, "what": str(fate), "hint": fate.hint}
            print_json({"event": "document_skipped", "data": told})
        else:
            err.print(f"skipped {fate} — {fate.hint}", style="yellow", markup=False)
    elif as_json:
        print_json({"event": "document", "data": fate})
    else:
        err.print(f"document {fate['name']}: {fate['outcome']}, {counted(fate['chunks'], 'chunk')}", style="dim",
                  markup=False)
