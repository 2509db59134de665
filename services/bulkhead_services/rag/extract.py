"""Bytes of a document to text with structure. Enters: bytes, media type. Leaves: Extracted or Failure.

Pure. HTML and PDF are parsed by `reader.py`, in a process of its own; its answer is judged here.
"""

import codecs
import re

from bulkhead.text.document_forms import binary_failure, has_zero_bytes
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import LostPage
from bulkhead_services.rag.port import PageCounts
from bulkhead_services.rag.structure import ExtractedText, read_structure

_SNIFF_BYTES = 4096
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.I)
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_NO_CHARSETS = frozenset({"unicode_escape", "raw_unicode_escape", "idna", "punycode", "utf_7"})
"""Codecs of Python that turn ASCII into something else: halves of characters among it, which nothing can store."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_MAX_CONTROL_SHARE = 0.01
SPARSE_PAGE_CHARS, SPARSE_LOOKED_CHARS = 100, 10_000
"""A page with fewer letters and digits holds almost no text."""


def decode_text(data: bytes, media_type: str, *, html: bool = False) -> str | Failure:
    """Text of bytes. Tried: byte order mark, UTF-8, the declared charset, Windows-1252; nothing else."""
    for mark, charset in _BOMS:
        if data.startswith(mark):
            return _check_text(data[len(mark) :].decode(charset, "replace"))
    if has_zero_bytes(data):
        return binary_failure("it contains zero bytes")
    try:
        return _check_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    declared = _CHARSET.search(media_type.encode("ascii", "replace"))
    if declared is None and html:
        declared = _CHARSET.search(data[:_SNIFF_BYTES])
    for charset in (declared.group(1).decode() if declared else "", "cp1252"):
        try:
            if charset and codecs.lookup(charset).name.replace("-", "_") not in _NO_CHARSETS:
                return _check_text(data.decode(charset))
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    return binary_failure("it is neither UTF-8 nor Windows-1252 nor in the charset that it declares")


def read_text(text: str, *, markdown: bool) -> ExtractedText | Failure:
    """Structure of plain text or Markdown."""
    return check_bounds(read_structure(text, markdown=markdown))


def read_pages(pages: list[str]) -> ExtractedText | Failure:
    """Text and structure of a PDF's pages; pages are apart by a blank line."""
    text = "\n\n".join(_CONTROL.sub(" ", page).strip() for page in pages if page.strip())
    # Lone surrogates come out of broken PDF fonts; no store and no blob can hold them.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if not text.strip():
        message = f"the PDF's {len(pages)} pages hold no text; it is probably a scan"
        return Failure.from_text("no_text", message, "run it through OCR and ingest the result")
    return check_bounds(read_structure(text + "\n", markdown=False))


def count_pages(pages: list[str], unreadable: dict[int, str]) -> PageCounts:
    """Pages of a PDF, and those with so little text that they are probably scans with a stamp, or blank. unreadable:
    what was wrong with a page, by its number."""
    lost: list[LostPage] = []
    for number, page in enumerate(pages, 1):
        letters = sum(map(str.isalnum, page[:SPARSE_LOOKED_CHARS]))
        if number in unreadable:
            reason = _CONTROL.sub(" ", unreadable[number])[: bounds.MAX_SUMMARY_CHARS]
            lost.append(LostPage(page=number, code="unreadable", reason=reason))
        elif letters < SPARSE_PAGE_CHARS:
            reason = f"{letters} letters and digits: probably a scan, or blank"
            lost.append(LostPage(page=number, code="almost_no_text", reason=reason))
    return PageCounts(len(pages), len(lost), tuple(lost[: bounds.MAX_LOST_PAGES]))


def check_bounds(found: ExtractedText) -> ExtractedText | Failure:
    """The text as it came, or why it is empty or too long."""
    if not found.blocks:
        message = "the document holds no text"
        return Failure.from_text(
            "empty_document", message, "check that the file was saved and is the one that you meant"
        )
    if len(found.text) > bounds.MAX_DOCUMENT_TEXT_CHARS:
        message = f"{len(found.text)} characters of text exceed {bounds.MAX_DOCUMENT_TEXT_CHARS}"
        return Failure.from_text(
            "document_too_long", message, "split the document and ingest its parts under names of their own"
        )
    return found


def _check_text(text: str) -> str | Failure:
    sample = text[: 256 * 1024]
    if len(_CONTROL.findall(sample)) > max(4, len(sample) * _MAX_CONTROL_SHARE):
        return binary_failure("it is full of control characters")
    return _CONTROL.sub(" ", text).replace("\r\n", "\n").replace("\r", "\n")
