"""The file of a multipart form (RFC 7578), read in time that grows with the form and with nothing else.

In: a request's Content-Type and body. Out: the name, media type and content of its first part that has a filename, or a
sentence on what is wrong with the form. `email` reads forms too, but one of a megabyte can hold it up for ten seconds,
and nested parts or comments exhaust its stack: whoever may send a document could stop the replica for everybody.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote

MAX_PARTS = 32
MAX_PART_HEAD_BYTES = 8 * 1024
_BOUNDARY = re.compile(r";[ \t]*boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s\";,]{1,70}))", re.IGNORECASE)
_FILENAME = re.compile(r";[ \t]*filename=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.IGNORECASE)
_FILENAME_ENCODED = re.compile(r";[ \t]*filename\*=utf-8'[^']*'([^\s;\"]+)", re.IGNORECASE)
_PLAIN = frozenset({"", "7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class FormFile:
    """A part with a filename. name: the last part of its path; media_type: lower case, "" when it says none."""

    name: str
    media_type: str
    data: bytes


def file_of(content_type: str, body: bytes) -> FormFile | str:
    """The first file, or what is wrong."""
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
