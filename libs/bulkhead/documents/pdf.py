"""Text of a PDF's pages. Enters: the document on stdin. Leaves: JSON on stdout.

`python -m bulkhead.documents.pdf pdf MEMORY_MIB CPU_SECONDS MAX_PAGES MAX_CHARS`.
"""

import io
import json
import struct
import sys
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from typing import Any

from bulkhead.documents.parser_process import DAMAGED, limit_this_process

REPLACEMENTS = ("/ActualText", "/Alt", "/E")
"""Properties of marked content whose text some readers show in place of what is drawn."""
DRAWING = frozenset({b"Tj", b"TJ", b"'", b'"'})
MAX_NESTED_FORMS = 16


class ReplacementTexts:
    """The texts that stand in a page's marked content in place of what is drawn."""

    def __init__(self, page: Any) -> None:
        self._named: dict[str, str] = {}
        self._add_named(page.get("/Resources"), MAX_NESTED_FORMS, set())
        self._marks: list[str] = []
        self.texts: list[str] = []

    def on_operation(self, operator: bytes, operands: Any, *_: object) -> None:
        """Note the replacement of what an operation of the page draws: some readers tell it each time."""
        if operator in (b"BMC", b"BDC"):
            properties = _resolve(operands[1]) if operator == b"BDC" and len(operands) > 1 else {}
            text = _replacement_in(properties) if hasattr(properties, "get") else self._named.get(str(properties), "")
            self._marks.append(text)
        elif operator == b"EMC" and self._marks:
            self._marks.pop()
        elif operator in DRAWING:
            self.texts += filter(None, self._marks)

    def _add_named(self, resources: Any, depth: int, seen: set[int]) -> None:
        """Add what the resources name; of one name in several forms the longest counts."""
        resources = _resolve(resources)
        if not hasattr(resources, "get") or id(resources) in seen or not depth:
            return
        seen.add(id(resources))
        for name, properties in (_resolve(resources.get("/Properties")) or {}).items():
            self._named[name] = max(self._named.get(name, ""), _replacement_in(_resolve(properties)), key=len)
        for form in (_resolve(resources.get("/XObject")) or {}).values():
            self._add_named(_resolve(form).get("/Resources"), depth - 1, seen)


def _resolve(value: Any) -> Any:
    """The object that a value of a PDF refers to."""
    return value.get_object() if hasattr(value, "get_object") else value


def _replacement_in(properties: Any) -> str:
    return " ".join(_text_of(_resolve(properties[name])) for name in REPLACEMENTS if name in properties)


def _text_of(value: Any) -> str:
    """A string of a PDF as text; pypdf takes some in content streams for UTF-16 that are not."""
    raw: bytes | None = getattr(value, "original_bytes", None)
    if raw is None:
        return ""
    return raw.decode("utf-16" if raw[:2] in (BOM_UTF16_BE, BOM_UTF16_LE) else "latin-1", "replace")


def read_pdf(data: bytes, max_pages: int, max_chars: int) -> dict[str, Any]:
    """Text of every page in order (`pages`), and each page's text that other readers show in place of what is drawn
    (`replacements`); or a failure's code and message."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # Exceptions that pypdf raises on broken files, besides its own.
    broken = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError)
    parser_errors = (PyPdfError, *broken, RecursionError, NotImplementedError, OSError, struct.error, zlib.error)
    pages, replacements, total = list[str](), list[str](), 0
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"code": "encrypted_document", "message": "the PDF asks for a password"}
        if len(reader.pages) > max_pages:
            return too_long(f"{len(reader.pages)} pages exceed {max_pages}")
        for page in reader.pages:
            replaced = ReplacementTexts(page)
            pages.append(page.extract_text(visitor_operand_before=replaced.on_operation))
            replacements.append(" ".join(replaced.texts))
            total += len(pages[-1]) + len(replacements[-1])
            if total > max_chars:
                return too_long(f"the text exceeds {max_chars} characters")
    except parser_errors as error:
        message = f"the PDF is damaged: {type(error).__name__}: {str(error)[:200]}"
        return {"code": DAMAGED, "message": message}
    return {"pages": pages, "replacements": replacements}


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
