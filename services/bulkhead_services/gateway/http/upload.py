"""Uploads: a raw body with its name in the query, or one file of a multipart form.

In: request headers, query and body. Out: name, media type and bytes, or a Problem.
"""

import mimetypes
import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from bulkhead_contracts import bounds
from bulkhead_services.gateway.http.multipart import file_of
from bulkhead_services.gateway.problems import Problem, too_large

UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""Media types that clients send unless told another (curl's --data-binary among them): the name decides then."""
_STEERING = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Overrides and isolates of direction: they make `exe.fdp` of a name end in pdf.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
BY_SUFFIX = {".md": "text/markdown", ".markdown": "text/markdown", ".txt": "text/plain", ".rst": "text/plain"}


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
    if any(unicodedata.category(char) in _STEERING or char in _TURNING for char in name):
        raise _unfit_document(
            "the name holds characters that steer a terminal or turn the letters around them",
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
