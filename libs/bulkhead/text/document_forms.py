"""Forms of documents that can be read: told by media type, name and first bytes, before anything is stored.

In: bytes, media type, name. Out: the form, or a Failure that names those there are. Pure.
"""

from typing import Literal

from bulkhead_contracts.result import Failure

Form = Literal["text", "markdown", "html", "pdf", "docx", "xlsx"]
TEXT_FORMS = frozenset({"text", "markdown", "html"})
OFFICE_FORMS = frozenset({"docx", "xlsx"})
SUPPORTED_FORMS = "text (.txt), Markdown (.md), HTML (.html), PDF (.pdf), Word (.docx) and Excel (.xlsx)"
OFFICE_TYPES: dict[str, Form] = {
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_MEDIA: dict[str, Form] = {
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/x-pdf": "pdf",
    "application/json": "text",
    **OFFICE_TYPES,
}
_BY_FORM: dict[Form, str] = {
    "text": "txt text csv log rst json",
    "markdown": "md markdown",
    "html": "html htm xhtml",
    "pdf": "pdf",
    "docx": "docx",
    "xlsx": "xlsx",
}
_ENDINGS = {ending: form for form, endings in _BY_FORM.items() for ending in endings.split()}
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain"})
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_ZIP, _OLD_OFFICE = b"PK", b"\xd0\xcf\x11\xe0"
_BINARY_CHECKED_BYTES = 64 * 1024


def form_of(data: bytes, media_type: str, name: str) -> Form | Failure:
    """The form in which to read a document: what it says it is, else its name, else (PDF) how it begins."""
    media = media_type.partition(";")[0].strip().lower()
    ending = _ENDINGS.get(name.rpartition(".")[2].lower()) if "." in name else None
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if media in _UNTOLD:
        return ending or "text"
    if media in _MEDIA:
        return _MEDIA[media]
    if media.startswith("text/"):
        return ending or "text"
    message = f"{name}: {media[:80]!r} cannot be read here"
    return Failure.from_text("unsupported_media_type", message, f"send {SUPPORTED_FORMS}; convert other formats first")


def find_misfit(data: bytes, media_type: str, name: str) -> Failure | None:
    """The reason to refuse a document before it is stored; None where its reader has to say."""
    form = form_of(data, media_type, name)
    if isinstance(form, Failure):
        return form
    if form in TEXT_FORMS and has_zero_bytes(data):
        return binary_failure("it contains zero bytes")
    if form in OFFICE_FORMS and not data.startswith(_ZIP):
        old = "it is in the old form of Office, or asks for a password"
        message = f"{name}: {old if data.startswith(_OLD_OFFICE) else f'this is no .{form} file'}"
        return Failure.from_text("damaged_document", message, "save it as .docx or .xlsx, without a password")
    return None


def has_zero_bytes(data: bytes) -> bool:
    """True for what begins as no text does, unless a byte order mark says that it is one."""
    return not data.startswith(_BOMS) and b"\x00" in data[:_BINARY_CHECKED_BYTES]


def binary_failure(why: str) -> Failure:
    """The refusal of what is no text."""
    return Failure.from_text("binary_document", f"this is not text: {why}", f"send {SUPPORTED_FORMS}")
