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

from bulkhead.amounts import counted
from bulkhead.client import Mesh, Refused
from bulkhead_cli.output import Exit, Stop, err, print_json, refusal
from bulkhead_contracts import bounds

UPLOADS_AT_ONCE = 4
SUFFIXES = frozenset({".md", ".markdown", ".txt", ".text", ".html", ".htm", ".csv", ".tsv", ".rst", ".pdf"})
"""Suffixes of documents in a directory; a file that is named may have any."""
MAX_FILES = 2_000
MAX_NAMED = 8
"""Number of skipped files that a message names."""
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
    relative: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(_inside(path, fit=True))
            if not inside:
                raise Stop(
                    Exit.USAGE,
                    f"the directory {path} holds no documents",
                    f"put {', '.join(sorted(SUFFIXES))} files into it, or name others one by one; what begins "
                    "with a dot, and a mesh's own directory, is not read",
                )
            if len(inside) > MAX_FILES:
                raise Stop(
                    Exit.USAGE,
                    f"the directory {path} holds {len(inside)} documents, over {MAX_FILES}",
                    "name a smaller directory; was this one meant?",
                )
            for one in inside:
                found.setdefault(one.resolve(), Upload(one, one.name, named=False))
                relative.setdefault(one.resolve(), one.relative_to(path))
        elif path.is_file():
            found[path.resolve()] = Upload(path, path.name, named=True)
        else:
            raise Stop(Exit.USAGE, f"there is no document {path}", "check the path")
    return _told_apart(found, relative)


def _inside(folder: Path, *, fit: bool) -> Iterator[Path]:
    """Documents by their suffix, or the others. Hidden ones stay hidden at every depth; a mesh's data holds keys."""
    for root, folders, names in os.walk(folder):
        if {"mesh.json", "identity"} & set(names + folders) and "credentials.json" in names:
            folders.clear()
            continue
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        yield from (
            Path(root, one)
            for one in names
            if not one.startswith(".") and (Path(one).suffix.lower() in SUFFIXES) == fit
        )


def passed_over(paths: list[Path]) -> list[tuple[Path, Stop]]:
    """The visible files of each directory that are no documents by their suffix."""
    named = {path.resolve() for path in paths}
    found = []
    for path in paths:
        others = (one for one in _inside(path, fit=False) if one.resolve() not in named) if path.is_dir() else ()
        if names := sorted(one.relative_to(path).as_posix() for one in others):
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            hint = f"of a directory {', '.join(sorted(SUFFIXES))} are added; name other files one by one"
            found.append(
                (path, Stop(Exit.USAGE, f"in {path}: {', '.join(names[:MAX_NAMED])}{more}", hint, name="not_documents"))
            )
    return found


def tell_passed_over(paths: list[Path], *, as_lines: bool = False) -> None:
    """Say it on standard error; as_lines: as an event of a stream."""
    for path, why in passed_over(paths):
        if as_lines:
            print_json({"event": "document_skipped", "data": _skipped(str(path), why)})
        else:
            err.print(f"skipped {why} — {why.hint}", style="yellow", markup=False)


def _told_apart(found: Mapping[Path, Upload], inside: Mapping[Path, Path]) -> list[Upload]:
    """Base names; where files share one, their paths in the directory that was named, and then as much of their whole
    paths as tells them apart: under one name, one would replace the other."""
    level = dict.fromkeys(found, 0)
    while True:
        names = {whole: _name(whole, inside.get(whole), level[whole]) for whole in found}
        times = Counter(names.values())
        same = [whole for whole, name in names.items() if times[name] > 1 and level[whole] <= len(whole.parts)]
        if not same:
            return [replace(upload, name=names[whole]) for whole, upload in found.items()]
        for whole in same:
            level[whole] += 1


def _name(whole: Path, relative: Path | None, level: int) -> str:
    if level == 0:
        return whole.name
    if relative is not None and level == 1:
        return relative.as_posix()
    count = level + (len(relative.parts) - 1 if relative is not None else 1)
    return "/".join(part.strip("/") for part in whole.parts[-count:] if part != "/")


Fate = dict[str, Any] | Stop
"""The receipt of a document, or why it was left out."""


async def add(
    mesh: Mesh, uploads: list[Upload], *, told: bool = True, on_fate: Callable[[Upload, Fate], None] | None = None
) -> list[Fate]:
    """Put them in; returns how each fared. told: say it, too. Raises Stop for a named file that does not fit, and when
    none of many fits; Unreachable."""
    room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def one(upload: Upload) -> Fate:
        async with room:
            return await _add(mesh, upload)

    fates = await asyncio.gather(*(one(upload) for upload in uploads))
    unfit = [fate for upload, fate in zip(uploads, fates, strict=True) if upload.named and isinstance(fate, Stop)]
    for upload, fate in zip(uploads, fates, strict=True):
        if fate in unfit:
            continue  # Ends the command; what else went in is in, and told.
        if on_fate is not None:
            on_fate(upload, fate)
        if told:
            _tell(upload, fate)
    if unfit:
        raise unfit[0]
    skipped = [fate for fate in fates if isinstance(fate, Stop)]
    if skipped and len(skipped) == len(uploads):
        raise Stop(
            Exit.REFUSED,
            f"none of {counted(len(uploads), 'document')} could be read",
            "give a directory with text, Markdown, HTML, CSV or PDF files",
            name="no_documents",
        )
    return fates


async def _add(mesh: Mesh, upload: Upload) -> Fate:
    """The receipt, or why this file does not go in. Raises Stop for what every other would meet as well."""
    try:
        if upload.path.stat().st_size > bounds.MAX_BLOB_BYTES:
            return Stop(
                Exit.USAGE,
                f"{upload.path} is larger than {bounds.MAX_BLOB_BYTES:,} bytes",
                "split it into several documents",
                name="too_large",
            )
        return await mesh.add_document(upload.path, upload.name)
    except Refused as error:
        problem = refusal(error, "" if str(error).startswith(upload.name) else str(upload.path))
        if error.status not in UNFIT_STATUS or error.code.startswith(NOT_ITS_FAULT):
            raise problem from error
        return problem
    except OSError as error:
        return Stop(
            Exit.USAGE, f"{upload.path} cannot be read: {error.strerror}", "check its permissions", name="unreadable"
        )


def _tell(upload: Upload, fate: Fate) -> None:
    if isinstance(fate, Stop):
        err.print(f"skipped {fate} — {fate.hint}", style="yellow", markup=False)
        return
    replaced = ", in place of the former document of this name" if fate.get("replaced_sha256") else ""
    err.print(
        f"document {fate['name']}: {fate['outcome']}, {counted(fate['chunks'], 'chunk')}{replaced}",
        style="yellow" if replaced else "dim",
        markup=False,
    )


def unreadable(uploads: list[Upload], fates: list[Fate]) -> str:
    """Which documents were left out; "" when all went in."""
    names = [str(upload.path) for upload, fate in zip(uploads, fates, strict=True) if isinstance(fate, Stop)]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    what = f"{len(names)} of {counted(len(uploads), 'document')} could not be read"
    return f"{what}: {', '.join(names[:MAX_NAMED])}{more}" if names else ""


def event_of(upload: Upload, fate: Fate) -> dict[str, Any]:
    """As a line of a stream."""
    if isinstance(fate, Stop):
        return {"event": "document_skipped", "data": _skipped(str(upload.path), fate)}
    return {"event": "document", "data": fate}


def as_json(uploads: list[Upload], fates: list[Fate], paths: list[Path]) -> dict[str, Any]:
    """All documents as JSON. paths: the arguments of the command."""
    pairs = list(zip(uploads, fates, strict=True))
    return {
        "documents": [fate for _, fate in pairs if not isinstance(fate, Stop)],
        "skipped": [_skipped(str(upload.path), fate) for upload, fate in pairs if isinstance(fate, Stop)]
        + [_skipped(str(path), why) for path, why in passed_over(paths)],
    }


def _skipped(path: str, why: Stop) -> dict[str, str]:
    return {"path": path, "code": why.name, "what": str(why), "hint": why.hint}
