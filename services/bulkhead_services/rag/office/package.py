"""The package of an Office document (ECMA-376): a zip of XML parts, each read piece by piece within bounds.

Enters: bytes. Leaves: events of a part's XML. Names are local: both namespaces of the standard read
alike. A document type is refused, so nothing is expanded or fetched.
"""

import io
import posixpath
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from xml.parsers import expat

MAX_PARTS = 10_000
MAX_INFLATED_BYTES = 256 * 1024 * 1024
"""Of the parts that are read, together."""
MAX_DEPTH = 256
PIECE_BYTES = 64 * 1024
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_DAMAGED = (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, NotImplementedError, ValueError, KeyError)


class UnreadableOffice(Exception):
    """A document that is not read. code: of the failure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class PartReader(Protocol):
    """Takes the events of one part, in order."""

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None: ...
    def end_element(self, name: str) -> None: ...
    def add_text(self, text: str) -> None: ...


class TextCount:
    """Characters of text so far. Raises UnreadableOffice beyond the most."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0

    def add(self, text: str) -> None:
        """Count a piece of text."""
        self._count += len(text)
        if self._count > self._most:
            raise UnreadableOffice("document_too_long", f"the text exceeds {self._most} characters")


@dataclass(frozen=True, slots=True)
class Relation:
    """A part that another part names. kind: the last word of its type."""

    kind: str
    part: str


class OfficePackage:
    """The parts of one document. Raises UnreadableOffice."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _DAMAGED as error:
            raise _damaged(error) from error
        names = self._zip.namelist()
        if len(names) > MAX_PARTS:
            raise UnreadableOffice("document_too_long", f"{len(names)} parts exceed {MAX_PARTS}")
        if len(set(names)) < len(names):
            raise UnreadableOffice("damaged_document", "the file is damaged: a part is there twice")
        self._names, self._inflated_bytes = frozenset(names), 0

    def main_part(self) -> str:
        """The part of the document itself."""
        main = [relation.part for relation in self.relations("").values() if relation.kind == "officeDocument"]
        if not main:
            raise UnreadableOffice("damaged_document", "the file is damaged: it names no document")
        return main[0]

    def relations(self, part: str) -> dict[str, Relation]:
        """The parts that a part names, by their ids; none where it names none."""
        folder, name = posixpath.split(part)
        reader, listing = _RelationReader(folder), posixpath.join(folder, "_rels", f"{name}.rels")
        if listing in self._names:
            self.read_part(listing, reader)
        return reader.relations

    def has_part(self, part: str) -> bool:
        """True when the package holds it."""
        return part in self._names

    def read_part(self, part: str, reader: PartReader) -> None:
        """Have a part read. Raises UnreadableOffice."""
        try:
            self._feed_part(part, reader)
        except _DAMAGED as error:
            raise _damaged(error) from error

    def _feed_part(self, part: str, reader: PartReader) -> None:
        info = self._zip.getinfo(part)
        if info.flag_bits & _ENCRYPTED:
            raise UnreadableOffice("encrypted_document", "the file asks for a password")
        if info.compress_type not in _METHODS:
            raise zipfile.BadZipFile(f"{part[:80]} is compressed in a way that Office does not use")
        parser = _build_parser(reader)
        with self._zip.open(info) as stream:
            while piece := stream.read(PIECE_BYTES):
                self._inflated_bytes += len(piece)
                if self._inflated_bytes > MAX_INFLATED_BYTES:
                    raise UnreadableOffice("document_too_long", f"it unfolds into more than {MAX_INFLATED_BYTES} bytes")
                parser.Parse(piece, False)
        parser.Parse(b"", True)


class _RelationReader:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.relations: dict[str, Relation] = {}

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "Relationship" and attributes.get("TargetMode") != "External":
            target = posixpath.normpath(posixpath.join("/", self._folder, attributes.get("Target", "")))
            kind = attributes.get("Type", "").rpartition("/")[2]
            self.relations[attributes.get("Id", "")] = Relation(kind, target.lstrip("/"))

    def end_element(self, name: str) -> None:
        pass

    def add_text(self, text: str) -> None:
        pass


def _build_parser(reader: PartReader) -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    depth = 0

    def start_element(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise UnreadableOffice("damaged_document", f"its XML nests deeper than {MAX_DEPTH}")
        reader.start_element(_local_name(name), {_local_name(key): value for key, value in attributes.items()})

    def end_element(name: str) -> None:
        nonlocal depth
        depth -= 1
        reader.end_element(_local_name(name))

    def refuse_doctype(*_: object) -> None:
        raise UnreadableOffice("damaged_document", "its XML has a document type, which Office does not write")

    parser.StartElementHandler, parser.EndElementHandler = start_element, end_element
    parser.CharacterDataHandler = reader.add_text
    parser.StartDoctypeDeclHandler = refuse_doctype
    return parser


def _local_name(name: str) -> str:
    return name.rpartition(" ")[2]


def _damaged(error: Exception) -> UnreadableOffice:
    message = f"the file is damaged: {type(error).__name__}: {str(error)[:200]}"
    return UnreadableOffice("damaged_document", message)
