"""Parse HTML, PDF, DOCX and XLSX in a process of its own. Enters: the document on stdin. Leaves: JSON on stdout.

`python -m bulkhead_services.rag.reader FORM MEMORY_MIB CPU_SECONDS MAX_PAGES MAX_CHARS`. A hostile file can make
a parser eat memory or time (html.parser is quadratic on unclosed comments); here it ends this process only.
HTML comes in decoded, as UTF-8. PDF leaves as pages, every other form as text and blocks.
"""

import json
import sys
from dataclasses import astuple
from typing import Any

from bulkhead.documents.parser_process import limit_this_process
from bulkhead.documents.pdf import read_pdf, too_long
from bulkhead_services.rag.office.package import UnreadableOffice
from bulkhead_services.rag.office.spreadsheet import read_xlsx
from bulkhead_services.rag.office.word import read_docx
from bulkhead_services.rag.structure import ExtractedText
from bulkhead_services.rag.webpage import read_webpage

ParserReply = dict[str, Any]
"""pages (PDF), or text and blocks, or a failure's code and message."""


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
    limit_this_process(memory_mib, cpu_s)
    data = sys.stdin.buffer.read()
    try:
        if form == "pdf":
            answer = read_pdf(data, max_pages, max_chars, skips_unreadable=True)
        elif form == "html":
            answer = _text_reply(read_webpage(data.decode()))
        else:
            answer = read_office(form, data, max_chars)
    except MemoryError:
        answer = too_long("the document unfolds into more than memory allows")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
