"""Uploads: a raw body with its name in the query, or one file of a multipart form.

In: request headers, query and body. Out: name, media type and bytes, or a Problem.
"""

import base64
import binascii
import mimetypes
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from bulkhead.text.document_forms import OFFICE_TYPES
from bulkhead_contracts import bounds
from bulkhead_contracts.invisible import drop_invisible
from bulkhead_services.gateway.problems import Problem, too_large

UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""Media types that clients send unless told another (curl's --data-binary among them): the name decides then."""
_STEERING = frozenset({"Cc", "Cs", "Zl", "Zp"})
BY_SUFFIX = {".md": "text/markdown", ".markdown": "text/markdown", ".txt": "text/plain", ".rst": "text/plain"}
BY_SUFFIX |= {f".{form}": media_type for media_type, form in OFFICE_TYPES.items()}
MAX_PARTS = 32
MAX_PART_HEAD_BYTES = 8 * 1024
_BOUNDARY = re.compile(r";[ \t]*boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s\";,]{1,70}))", re.IGNORECASE)
_FILENAME = re.compile(r";[ \t]*filename=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.IGNORECASE)
_FILENAME_ENCODED = re.compile(r";[ \t]*filename\*=utf-8'[^']*'([^\s;\"]+)", re.IGNORECASE)
_PLAIN = frozenset({"", "7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class UploadedDocument:
    """A document before it is stored."""

    name: str
    media_type: str
    data: bytes


def read_document(request: Request, body: bytes) -> UploadedDocument:
    """Find name, type and content. Raises Problem 413, 422."""
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/form-data"):
        name, media_type, data = _from_form(content_type, body)
    else:
        name, media_type, data = "", content_type.partition(";")[0].strip().lower(), body
    stated_name = request.query_params.get("name") or unquote(request.headers.get("x-document-name", ""))
    name = checked_name(stated_name or name)
    if drop_invisible(name) != name or any(unicodedata.category(char) in _STEERING for char in name):
        raise _unfit_document(
            "the name holds characters that nobody sees, that steer a terminal or turn the letters around them",
            "name it by what people read; the last part of a path is enough",
        )
    if not data.strip():
        raise _unfit_document("the document is empty", "send its content as the request body")
    if len(data) > bounds.MAX_BLOB_BYTES:
        raise too_large("the document", bounds.MAX_BLOB_BYTES, "bytes", "split it into several documents")
    return UploadedDocument(name, _media_type(name, media_type), data)


def checked_name(name: str) -> str:
    """A document's name. Raises Problem 422."""
    if not name:
        raise _unfit_document(
            "the document has no name", "add ?name=fares.md, or send a multipart file with a filename"
        )
    if len(name) > bounds.MAX_NAME_CHARS or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise _unfit_document(
            f"the name must have at most {bounds.MAX_NAME_CHARS} printable characters",
            "shorten the name; the last part of a path is enough",
        )
    return name


def _media_type(name: str, said: str) -> str:
    if said not in UNSAID and len(said) <= bounds.MAX_MEDIA_TYPE_CHARS:
        return said
    suffix = "." + name.rpartition(".")[2].lower()
    return BY_SUFFIX.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _from_form(content_type: str, body: bytes) -> tuple[str, str, bytes]:
    form_file = file_of(content_type, body)
    if isinstance(form_file, str):
        raise _unfit_document(
            f"the form cannot be used: {form_file}", "send one part with a filename, as `curl -F file=@fares.md` does"
        )
    return form_file.name, form_file.media_type, form_file.data


def _unfit_document(detail: str, hint: str) -> Problem:
    return Problem(422, "invalid_document", "The document does not fit", detail, hint)


@dataclass(frozen=True, slots=True)
class FormFile:
    """A part with a filename. name: the last part of its path; media_type: lower case, "" when it says none."""

    name: str
    media_type: str
    data: bytes


def file_of(content_type: str, body: bytes) -> FormFile | str:
    """The first file of a multipart form (RFC 7578), or what is wrong; read in time that grows with the form and with
    nothing else.

    `email` reads forms too, but one of a megabyte can hold it up for ten seconds, and nested parts or comments exhaust
    its stack: whoever may send a document could stop the replica for everybody.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return "its Content-Type names no boundary"
    mark = b"--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    # A boundary stands at the beginning of a line; with this line end before it the first one does, too.
    body = b"\r\n" + body
    mark = b"\r\n" + mark
    position = body.find(mark)
    for _ in range(MAX_PARTS):
        if position < 0:
            return "it is cut off, or its boundary is not the one that its Content-Type names"
        begin = position + len(mark)
        if body.startswith(b"--", begin):
            return "it holds no file"
        head_ends = body.find(b"\r\n\r\n", begin, begin + MAX_PART_HEAD_BYTES)
        if head_ends < 0:
            return f"the headers of a part do not end within {MAX_PART_HEAD_BYTES} bytes"
        position = body.find(mark, head_ends + 2)
        head = _parse_headers(body[begin:head_ends])
        name = _parse_filename(head.get("content-disposition", ""))
        if name and position >= 0:
            return _decode_part(name, head, body[head_ends + 4 : position])
    return f"it has more than {MAX_PARTS} parts before a file"


def _parse_headers(head: bytes) -> dict[str, str]:
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    rows = (line.partition(":") for line in text.split("\r\n"))
    return {name.strip().lower(): value.strip() for name, colon, value in rows if colon}


def _parse_filename(disposition: str) -> str:
    encoded, plain = _FILENAME_ENCODED.search(disposition), _FILENAME.search(disposition)
    if encoded is not None:
        name = unquote(encoded[1])
    elif plain is not None:
        # curl writes \" where browsers write %22; some old ones send whole Windows paths, backslashes and all.
        name = (plain[1] or plain[2] or "").replace('\\"', '"').replace("%22", '"')
    else:
        return ""
    return name.replace("\\", "/").rpartition("/")[2]


def _decode_part(name: str, head: dict[str, str], data: bytes) -> FormFile | str:
    encoding = head.get("content-transfer-encoding", "").lower()
    if encoding == "base64":
        try:
            data = base64.b64decode(data.translate(None, b"\r\n"), validate=True)
        except binascii.Error:
            return "its file says that it is base64 and is not"
    elif encoding not in _PLAIN:
        return f"its file comes in the transfer encoding {encoding[:20]!r}; send it as it is (binary)"
    return FormFile(name, head.get("content-type", "").partition(";")[0].strip().lower(), data)
