"""Text of a PDF's pages. Enters: the document on stdin. Leaves: JSON on stdout.

`python -m bulkhead.documents.pdf pdf MEMORY_MIB CPU_SECONDS MAX_PAGES MAX_CHARS`.
"""

import io
import json
import struct
import sys
import zlib
from typing import Any

from bulkhead.documents.parser_process import DAMAGED, limit_this_process


def read_pdf(data: bytes, max_pages: int, max_chars: int) -> dict[str, Any]:
    """Text of every page in order (`pages`), or a failure's code and message."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # Exceptions that pypdf raises on broken files, besides its own.
    broken = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError)
    parser_errors = (PyPdfError, *broken, RecursionError, NotImplementedError, OSError, struct.error, zlib.error)
    pages: list[str] = []
    total = 0
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"code": "encrypted_document", "message": "the PDF asks for a password"}
        if len(reader.pages) > max_pages:
            return too_long(f"{len(reader.pages)} pages exceed {max_pages}")
        for page in reader.pages:
            pages.append(page.extract_text())
            total += len(pages[-1])
            if total > max_chars:
                return too_long(f"the text exceeds {max_chars} characters")
    except parser_errors as error:
        message = f"the PDF is damaged: {type(error).__name__}: {str(error)[:200]}"
        return {"code": DAMAGED, "message": message}
    return {"pages": pages}


def too_long(message: str) -> dict[str, Any]:
    """The failure of a document that is over a bound."""
    return {"code": "document_too_long", "message": message}


def main(arguments: list[str]) -> None:
    """Limit this process, read stdin, answer on stdout."""
    memory_mib, cpu_s, max_pages, max_chars = (int(argument) for argument in arguments[1:])
    limit_this_process(memory_mib, cpu_s)
    try:
        answer = read_pdf(sys.stdin.buffer.read(), max_pages, max_chars)
    except MemoryError:
        answer = too_long("the document unfolds into more than memory allows")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
