"""Text of a PDF's pages. Enters: the document. Leaves: text by the page, or a failure's code and message."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from bulkhead.documents.parser_process import DAMAGED

ENCRYPTED = {"code": "encrypted_document", "message": "the PDF asks for a password"}


def _text_of_page(page: Any) -> str:
    text: str = page.extract_text()
    return text


def read_pdf(
    data: bytes,
    max_pages: int,
    max_chars: int,
    text_of_page: Callable[[Any], str] = _text_of_page,
    *,
    skips_unreadable: bool = False,
) -> dict[str, Any]:
    """Text of every page in order (`pages`); or a failure's code and message. text_of_page: a ValueError says what is
    wrong with a page. skips_unreadable: such a page is empty, and `unreadable` has its number and what is wrong with
    it; a document without any readable page fails."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # Exceptions that pypdf raises on broken files, besides its own.
    broken = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError)
    parser_errors = (PyPdfError, *broken, RecursionError, NotImplementedError, OSError, struct.error, zlib.error)
    pages, total, unreadable = list[str](), 0, list[tuple[int, str]]()
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return ENCRYPTED
        if len(reader.pages) > max_pages:
            return too_long(f"{len(reader.pages)} pages exceed {max_pages}")
        for index in range(len(reader.pages)):
            try:
                pages.append(text_of_page(reader.pages[index]))
            except parser_errors as error:
                if not skips_unreadable or len(unreadable) + 1 == len(reader.pages):
                    raise
                pages.append("")
                unreadable.append((index + 1, _describe(error)))
            total += len(pages[-1])
            if total > max_chars:
                return too_long(f"the text exceeds {max_chars} characters")
    except parser_errors as error:
        return damaged(_describe(error))
    return {"pages": pages, "unreadable": unreadable}


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def damaged(reason: str) -> dict[str, Any]:
    """The failure of a document that cannot be read, or in more than one way."""
    return {"code": DAMAGED, "message": f"the PDF is damaged: {reason}"}


def too_long(message: str) -> dict[str, Any]:
    """The failure of a document that is over a bound."""
    return {"code": "document_too_long", "message": message}
