"""Parse HTML, PDF, DOCX and XLSX in a process of its own. Enters: the document on stdin. Leaves: JSON on stdout.

`python -m bulkhead_services.rag.reader FORM MEMORY_MIB CPU_SECONDS MAX_PAGES MAX_CHARS`. A hostile file can make
a parser eat memory or time (html.parser is quadratic on unclosed comments); here it ends this process only.
HTML comes in decoded, as UTF-8. PDF leaves as pages, every other form as text and blocks.
"""

import io
import json
import logging
import resource
import struct
import sys
import zlib
from dataclasses import astuple
from typing import Any, TypedDict

from bulkhead_services.rag.office.package import UnreadableOffice
from bulkhead_services.rag.office.spreadsheet import read_xlsx
from bulkhead_services.rag.office.word import read_docx
from bulkhead_services.rag.structure import ExtractedText
from bulkhead_services.rag.webpage import read_webpage


class ParserReply(TypedDict, total=False):
    """pages (PDF), or text and blocks, or a failure's code and message."""

    pages: list[str]
    text: str
    blocks: list[tuple[Any, ...]]
    code: str
    message: str


def _too_long(message: str) -> ParserReply:
    return {"code": "document_too_long", "message": message}


def read_pdf(data: bytes, max_pages: int, max_chars: int) -> ParserReply:
    """Text of every page, in order."""
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
            return _too_long(f"{len(reader.pages)} pages exceed {max_pages}")
        for page in reader.pages:
            pages.append(page.extract_text())
            total += len(pages[-1])
            if total > max_chars:
                return _too_long(f"the text exceeds {max_chars} characters")
    except parser_errors as error:
        message = f"the PDF is damaged: {type(error).__name__}: {str(error)[:200]}"
        return {"code": "damaged_document", "message": message}
    return {"pages": pages}


def read_office(form: str, data: bytes, max_chars: int) -> ParserReply:
    """Text and blocks of a DOCX or XLSX file."""
    try:
        return _text_reply(read_docx(data, max_chars) if form == "docx" else read_xlsx(data, max_chars))
    except UnreadableOffice as error:
        return {"code": error.code, "message": error.message}


def _text_reply(extracted: ExtractedText) -> ParserReply:
    return {"text": extracted.text, "blocks": [astuple(block) for block in extracted.blocks]}


def main(arguments: list[str]) -> None:
    """Limit this process, read stdin, answer on stdout."""
    form = arguments[0]
    memory_mib, cpu_s, max_pages, max_chars = (int(argument) for argument in arguments[1:])
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    logging.disable(logging.CRITICAL)
    data = sys.stdin.buffer.read()
    try:
        if form == "pdf":
            answer = read_pdf(data, max_pages, max_chars)
        elif form == "html":
            answer = _text_reply(read_webpage(data.decode()))
        else:
            answer = read_office(form, data, max_chars)
    except MemoryError:
        answer = _too_long("the document unfolds into more than memory allows")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
