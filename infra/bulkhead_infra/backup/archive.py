"""One backup as a file: a tar with a manifest at its end, without which it is not whole.

In: parts (name, bytes). Out: a file of mode 0600 that has its name only when everything is in it and on disk. Read
back, nothing of what the file says is believed: names must fit a pattern and are never paths, sizes must fit the file,
digests must fit the manifest. A restore still trusts the maker of the file: digests show damage, not malice.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = 2
"""Raised when an older bulkhead could not read what a newer one writes."""
FORMAT_PART, MANIFEST_PART = "format.json", "manifest.json"
PART_NAME = re.compile(
    r"(?:streams/[A-Z][A-Z_]{0,63}|documents/\d{1,6}|api_keys\.json|keys\.sealed|(?:format|manifest)\.json)"
)
SUFFIX = ".bulkhead"
BLOCK = tarfile.BLOCKSIZE
CHUNK_BYTES = 1024 * 1024
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_SMALL_BYTES = 16 * 1024 * 1024
"""Largest part that is read as a whole: all but streams and documents."""
MAX_PARTS = 100_000
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class BackupError(Exception):
    """It could not be made or restored; says why and what to do."""


class BackupPathError(BackupError):
    """Another file or folder was meant: nothing is wrong with what was named but that it is not fit for this."""


class _ArchiveModel(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class ArchivePart(_ArchiveModel):
    """A part's length and sha256."""

    size: Count
    sha256: Digest


class StreamCopy(_ArchiveModel):
    """A stream as it was copied: what the broker must count after a restore."""

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Z_]{0,63}$")]
    messages: Count
    bytes: Count
    first_seq: Count
    last_seq: Count


class DurablePosition(_ArchiveModel):
    """A durable has acknowledged everything up to `floor`; what lies above it is handled (again)."""

    stream: SafeName
    durable: SafeName
    floor: Count


class DocumentsCopy(_ArchiveModel):
    """The store of one tenant's documents; its part is `documents/<its place in the list>`."""

    tenant: SafeName


class BackupManifest(_ArchiveModel):
    """Manifest of a backup. Positions were read before any stream: see `backup`."""

    format: int
    version: str
    store_format: Count
    """Of the streams in it."""
    created_unix_ms: Count
    shards: dict[str, int]
    streams: tuple[StreamCopy, ...]
    positions: tuple[DurablePosition, ...]
    documents: tuple[DocumentsCopy, ...]
    has_documents: bool
    has_keys: bool
    parts: dict[str, ArchivePart]


class ArchiveWriter:
    """`with ArchiveWriter(path) as file: file.put(...); file.finish(manifest)`; else nothing stays. Raises
    BackupError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, ArchivePart] = {}
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._done = False

    def __enter__(self) -> "ArchiveWriter":
        if self.path.exists() or self.path.is_symlink():
            raise BackupPathError(f"{self.path} is there already; backups are never overwritten: choose another name")
        try:
            self._file: BinaryIO = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            self.put(FORMAT_PART, [json.dumps({"bulkhead_backup": FORMAT}).encode()])
        except OSError as error:
            raise self.write_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._done:
            self._partial.unlink(missing_ok=True)

    def write_error(self, error: OSError) -> BackupError:
        """Message when it cannot be written."""
        return BackupError(f"{self.path} cannot be written: {error.strerror}; choose another place, nothing was kept")

    def open(self, name: str) -> "PartWriter":
        """A part whose length is not known yet; close it before the next one."""
        return PartWriter(self, self._file, name)

    def put(self, name: str, chunks: list[bytes]) -> None:
        with self.open(name) as part:
            for chunk in chunks:
                part.write(chunk)

    def finish(self, manifest: BackupManifest) -> None:
        """Write the manifest and give the file its name. Raises BackupError."""
        try:
            self.put(MANIFEST_PART, [manifest.model_dump_json(indent=1).encode()])
            self._file.write(b"\0" * 2 * BLOCK)
            self._file.flush()
            os.fsync(self._file.fileno())
            os.link(self._partial, self.path)  # Unlike a rename it replaces nobody's file.
            self._partial.unlink()
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError as error:
            raise BackupError(f"{self.path} was created meanwhile; choose another name") from error
        except OSError as error:
            raise self.write_error(error) from error
        self._done = True


class PartWriter:
    """Write into it; at its end the header gets the length."""

    def __init__(self, writer: ArchiveWriter, file: BinaryIO, name: str) -> None:
        assert PART_NAME.fullmatch(name) and name not in writer.parts, name
        self._writer, self._file, self._name = writer, file, name
        self._start = file.tell()
        self._digest, self.size = hashlib.sha256(), 0

    def __enter__(self) -> "PartWriter":
        self._file.write(b"\0" * BLOCK)
        return self

    def write(self, data: bytes) -> None:
        """Add to the part. Raises BackupError when the disk is full."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._writer.write_error(error) from error
        self._digest.update(data)
        self.size += len(data)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        try:
            self._file.write(b"\0" * (-self.size % BLOCK))
            end = self._file.tell()
            header = tarfile.TarInfo(self._name)
            header.size, header.mode = self.size, 0o600
            self._file.seek(self._start)
            self._file.write(header.tobuf(tarfile.GNU_FORMAT))
            self._file.seek(end)
        except OSError as error:
            raise self._writer.write_error(error) from error
        self._writer.parts[self._name] = ArchivePart(size=self.size, sha256=self._digest.hexdigest())


@dataclass(frozen=True, slots=True)
class _PartExtent:
    start: int
    size: int


class ArchiveReader:
    """A backup that was read to its end: whole, and every digest right. Raises BackupError, with nothing changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self._length = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise BackupPathError(
                f"{path} cannot be read: {error.strerror}; name a file that `bulkhead backup` made"
            ) from error
        self._where: dict[str, _PartExtent] = {}
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ArchiveReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_chunks(self, name: str) -> Iterator[bytes]:
        """A part, piece by piece."""
        where = self._where[name]
        self._file.seek(where.start)
        remaining = where.size
        while remaining:
            data = self._file.read(min(CHUNK_BYTES, remaining))
            if not data:
                raise self._truncated_error()
            remaining -= len(data)
            yield data

    def read_small_part(self, name: str) -> bytes:
        """A small part. Raises BackupError when it is none."""
        if self._where[name].size > MAX_SMALL_BYTES:
            raise self._untrusted_error(f"{name} is larger than any bulkhead writes it")
        return b"".join(self.read_chunks(name))

    def has_part(self, name: str) -> bool:
        return name in self._where

    def _read_manifest(self) -> BackupManifest:
        digests = {}
        for name, where in self._scan_parts():
            self._where[name] = where
            digest = hashlib.sha256()
            for chunk in self.read_chunks(name):
                digest.update(chunk)
            digests[name] = ArchivePart(size=where.size, sha256=digest.hexdigest())
            if name == FORMAT_PART:
                self._check_format()
            if name == MANIFEST_PART:
                break
        if MANIFEST_PART not in self._where:
            raise self._truncated_error() if self._where else self._foreign_file_error()
        manifest = self._parse_manifest()
        del digests[MANIFEST_PART]
        self._compare_digests(digests, manifest.parts)
        expected = {FORMAT_PART} | {f"streams/{stream.name}" for stream in manifest.streams}
        expected |= {f"documents/{place}" for place in range(len(manifest.documents))}
        if missing := expected - set(digests):
            raise self._untrusted_error(f"its manifest names {sorted(missing)[0]}, which is not in it")
        return manifest

    def _scan_parts(self) -> Iterator[tuple[str, _PartExtent]]:
        position = 0
        for _ in range(MAX_PARTS):
            self._file.seek(position)
            block = self._file.read(BLOCK)
            if len(block) < BLOCK or not block.strip(b"\0"):
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            except (tarfile.HeaderError, UnicodeError) as error:
                if not position:
                    raise self._foreign_file_error() from error
                raise self._truncated_error() from error
            if not position and header.name != FORMAT_PART:
                raise self._foreign_file_error()
            if header.type != tarfile.REGTYPE or not PART_NAME.fullmatch(header.name) or header.name in self._where:
                raise self._untrusted_error(f"it holds {header.name[:80]!r}, which no backup does")
            start = position + BLOCK
            if header.size < 0 or start + header.size > self._length:
                raise self._truncated_error()
            yield header.name, _PartExtent(start, header.size)
            position = start + header.size + (-header.size % BLOCK)
        raise self._untrusted_error(f"it has more than {MAX_PARTS} parts")

    def _check_format(self) -> None:
        try:
            format_number = int(json.loads(self.read_small_part(FORMAT_PART))["bulkhead_backup"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign_file_error() from error
        if format_number != FORMAT:
            way = "restore it with the version that made it"
            raise BackupError(f"{self.path} has format {format_number} and this bulkhead reads {FORMAT}; {way}")

    def _parse_manifest(self) -> BackupManifest:
        if self._where[MANIFEST_PART].size > MAX_MANIFEST_BYTES:
            raise self._untrusted_error("its manifest is larger than any bulkhead writes it")
        try:
            return BackupManifest.model_validate_json(self.read_small_part(MANIFEST_PART))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise self._untrusted_error(f"its manifest is not valid: {where}: {first['msg']}") from error

    def _compare_digests(self, actual: Mapping[str, ArchivePart], recorded: Mapping[str, ArchivePart]) -> None:
        for name in sorted(set(actual) | set(recorded)):
            if name not in recorded:
                raise self._untrusted_error(f"{name} is in it, and not in its manifest")
            if name not in actual:
                raise self._untrusted_error(f"its manifest names {name}, which is not in it")
            if actual[name] != recorded[name]:
                raise BackupError(
                    f"{self.path} is damaged: {name} is not what was written ({actual[name].size} bytes, "
                    f"{recorded[name].size} were); restore another backup, or fetch this one again"
                )

    def _truncated_error(self) -> BackupError:
        return BackupError(
            f"{self.path} is truncated: it ends before its manifest; copy it again, or restore another one"
        )

    def _foreign_file_error(self) -> BackupError:
        return BackupPathError(f"{self.path} is no backup of a mesh; name a file that `bulkhead backup` made")

    def _untrusted_error(self, reason: str) -> BackupError:
        return BackupError(f"{self.path} cannot be trusted: {reason}; restore another backup")
