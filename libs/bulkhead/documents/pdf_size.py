"""Size of a PDF, as large as any of its readers sees it. Enters: the document on stdin. Leaves: JSON on stdout.

`python -m bulkhead.documents.pdf_size pdf MEMORY_MIB CPU_SECONDS MAX_PAGES MAX_CHARS`.

Nobody knows which library a provider reads a PDF with, and each of them mends damage in its own way. Three readings are
laid over each other: pypdf's, PDFium's by the file's own index, and PDFium's of the objects as they stand in the file,
which is what readers do where the index is wrong. What could be read in further ways is refused.
"""

import json
import re
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from contextlib import closing
from typing import Any

from bulkhead.documents.parser_process import limit_this_process
from bulkhead.documents.pdf import ENCRYPTED, damaged, read_pdf, too_long

REPLACEMENTS = ("/ActualText", "/Alt", "/E")
"""Properties of marked content whose text some readers show in place of what is drawn."""
NOTES = ("/Contents", "/RC", "/V", "/Opt", "/MK")
"""Fields of an annotation whose text some readers show, and draw where it has no appearance."""
DRAWING = frozenset({b"Tj", b"TJ", b"'", b'"'})
PAINTING = frozenset({b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*", b"S", b"s", b"sh", b"Do", b"ET", b"INLINE IMAGE"})
"""Operations for each of which some readers show the text of the pattern or mask that they are done with."""
MAX_NESTED_FORMS = 16
MAX_NESTED_FIELDS = 16
_NO_INDEX = b"\n%" + b"%" * 5_000
"""Behind the end of a file: PDFium looks for the index in the last 4,096 bytes."""
_DEFINITIONS = re.compile(rb"(?<![0-9])([0-9]{1,10})[\0\t\n\f\r ]+([0-9]{1,5})[\0\t\n\f\r ]+obj\b|%%EOF")
_DRAWN_TEXT = re.compile(rb"(?:[)>\]](?:\s|%[^\r\n]*[\r\n])*(?:T[Jj]|['\"])|/\S+\s+Do)(?![^\s%/(<\[])")
_TEXT_OPERATOR = re.compile(rb"(?<![A-Za-z/])T[Jj](?![A-Za-z0-9])|(?<![^\s)>\]])['\"](?!\S)")
_WORDS = re.compile(r"[!-~]+|[^\x00-\x7f]")
"""Those of scripts without blanks by the character."""


class HiddenTexts:
    """The texts of a page that only some readers show. problem: why another reader may find more text in it."""

    def __init__(self, page: Any) -> None:
        self.problem = ""
        self.texts = list[str]()
        self._page = page
        self._marks: list[str] = []
        self._named: dict[str, str] = {}
        self._painted: dict[str, str] = {}
        self._painting = {b"gs": "", b"scn": ""}
        self._seen = set[tuple[int, bool]]()
        self._add_named(page.get("/Resources"), MAX_NESTED_FORMS)
        for note in filter(lambda note: hasattr(note, "get"), map(_resolve, _resolve(page.get("/Annots")) or ())):
            self.texts += (*_texts_of_note(note), *map(self._text_of_form, _appearances_of(note)))

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
        elif operator == b"INLINE IMAGE" and _DRAWN_TEXT.search(operands["data"].partition(b"EI")[2]):
            # Another reader takes the first of such words for the end of the image.
            self.problem = "text follows an inline image whose end its readers see in different places"
        elif operator in (b"gs", b"scn", b"SCN") and operands:
            kind, text = operator.lower(), self._painted.get(str(operands[-1]), "")
            self._painting[kind] = max(self._painting[kind], text, key=len)
        if operator in PAINTING:
            self.texts += filter(None, self._painting.values())

    def _text_of_form(self, form: Any) -> str:
        text: str = self._page.extract_xform_text(form, visitor_operand_before=self.on_operation)
        return text

    def _add_named(self, resources: Any, depth: int, is_shown: bool = True) -> None:
        """Add what the resources name; of one name in several forms the longest counts. is_shown: not by all readers,
        what they paint with and mask by."""
        resources = _resolve(resources)
        if not hasattr(resources, "get") or (id(resources), is_shown) in self._seen or not depth:
            return
        self._seen.add((id(resources), is_shown))
        for name, properties in _named_in(resources, "/Properties"):
            self._named[name] = max(self._named.get(name, ""), _replacement_in(properties), key=len)
        for form in (form for _, form in _named_in(resources, "/XObject")):
            self._add_named(form.get("/Resources"), depth - 1, is_shown)
        for name, form in (*_masks_in(resources), *_named_in(resources, "/Pattern")):
            text = self._text_of_form(form) if hasattr(form, "get_data") else ""
            self._painted[name] = max(self._painted.get(name, ""), text, key=len)
            if not is_shown if text.strip() else _may_draw_text(form):
                self.problem = "text stands in a pattern or a mask in which only some readers find it"
            self._add_named(form.get("/Resources"), depth - 1, False)


def _resolve(value: Any) -> Any:
    """The object that a value of a PDF refers to."""
    return value.get_object() if hasattr(value, "get_object") else value


def _may_draw_text(form: Any) -> bool:
    content = form.get_data() if hasattr(form, "get_data") else b""
    # What it has no resources for, some readers look for in those of the page.
    return _TEXT_OPERATOR.search(content) is not None or (b"Do" in content and "/Resources" not in form)


def _named_in(resources: Any, kind: str) -> list[tuple[str, Any]]:
    """The dictionaries and streams of a kind, with their names."""
    rows = ((name, _resolve(value)) for name, value in (_resolve(resources.get(kind)) or {}).items())
    return [(name, value) for name, value in rows if hasattr(value, "get")]


def _masks_in(resources: Any) -> list[tuple[str, Any]]:
    """The forms that states of the resources mask by."""
    masks = [(name, _resolve(state.get("/SMask"))) for name, state in _named_in(resources, "/ExtGState")]
    groups = [(name, _resolve(mask.get("/G"))) for name, mask in masks if hasattr(mask, "get")]
    return [(name, group) for name, group in groups if hasattr(group, "get")]


def _replacement_in(properties: Any) -> str:
    return " ".join(_text_of(_resolve(properties[name])) for name in REPLACEMENTS if name in properties)


def _texts_of_note(note: Any) -> list[str]:
    """The texts of an annotation; those of a form's field may stand in the field above it."""
    texts = list[str]()
    for _ in range(MAX_NESTED_FIELDS):
        if not hasattr(note, "get"):
            break
        texts += (text for name in NOTES if name in note for text in _strings_in(note[name], MAX_NESTED_FIELDS))
        note = _resolve(note.get("/Parent"))
    return texts


def _strings_in(value: Any, depth: int) -> list[str]:
    value = _resolve(value)
    if isinstance(value, dict | list) and depth:
        inner = value.values() if isinstance(value, dict) else value
        return [text for part in inner for text in _strings_in(part, depth - 1)]
    return [_text_of(value)]


def _appearances_of(note: Any) -> list[Any]:
    """The looks of an annotation, in each of its states."""
    normal = _resolve((_resolve(note.get("/AP")) or {}).get("/N"))
    states = [normal] if hasattr(normal, "get_data") else map(_resolve, (normal or {}).values())
    return [state for state in states if hasattr(state, "get_data")]


def _text_of(value: Any) -> str:
    """A string of a PDF as text; pypdf takes some in content streams for UTF-16 that are not."""
    raw: bytes | None = getattr(value, "original_bytes", None)
    if raw is None:
        return ""
    return raw.decode("utf-16" if raw[:2] in (BOM_UTF16_BE, BOM_UTF16_LE) else "latin-1", "replace")


def _read_page(page: Any) -> str:
    """Text of a page, and what others show beside it. Raises ValueError."""
    hidden = HiddenTexts(page)
    text = page.extract_text(visitor_operand_before=hidden.on_operation)
    if hidden.problem:
        raise ValueError(hidden.problem)
    return " ".join((text, *hidden.texts))


def _object_defined_twice(data: bytes) -> int | None:
    """An object that has two definitions of which neither is a later revision of the other."""
    last, revision = dict[int, tuple[int, int]](), 0
    for definition in _DEFINITIONS.finditer(data):
        if definition[1] is None:
            revision += 1
            continue
        number, generation = int(definition[1]), int(definition[2])
        of_before, generation_before = last.get(number, (-1, 0))
        if of_before == revision or generation < generation_before:
            return number
        last[number] = revision, generation
    return None


def _read_with_pdfium(data: bytes, max_pages: int, max_chars: int) -> dict[str, Any]:
    """Text of every page, with its annotations; or a failure's code and message."""
    import pypdfium2
    from pypdfium2 import raw

    pages, chars_left = list[str](), max_chars
    try:
        document = pypdfium2.PdfDocument(data)
        if len(document) > max_pages:
            return too_long(f"{len(document)} pages exceed {max_pages}")
        for number in range(len(document)):
            with closing(document[number]) as page:
                raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            # Opened again: what was an annotation is part of its content now.
            with closing(document[number]) as page, closing(page.get_textpage()) as text:
                chars_left -= text.count_chars()
                if chars_left < 0:
                    return too_long(f"the text exceeds {max_chars} characters")
                pages.append(text.get_text_range(errors="replace").replace("\r\n", "\n"))
    except pypdfium2.PdfiumError as error:
        return ENCRYPTED if error.err_code == raw.FPDF_ERR_PASSWORD else damaged(str(error))
    return {"pages": pages}


def _add_missing_words(text: str, other: str) -> str:
    """A text with the words and blanks of another reading that it lacks."""
    missing = Counter(match[0] for match in _WORDS.finditer(other))
    missing.subtract(match[0] for match in _WORDS.finditer(text))
    blanks = sum(map(str.isspace, other)) - sum(map(str.isspace, text))
    return " ".join((text, *missing.elements())) + "\n" * max(0, blanks)


def measure_pdf(data: bytes, max_pages: int, max_chars: int) -> dict[str, Any]:
    """Number of its pages and all of its text (`pages`, `text`); or a failure's code and message."""
    if (number := _object_defined_twice(data)) is not None:
        return damaged(f"object {number} is defined twice in one revision")
    page_counts, text = list[int](), ""
    # PDFium first: what is too long it finds soonest.
    for read_text, content in (
        (_read_with_pdfium, data),
        (_read_with_pdfium, data + _NO_INDEX),
        (_read_with_pypdf, data),
    ):
        answer = read_text(content, max_pages, max_chars)
        if "pages" not in answer:
            return answer
        page_counts.append(len(answer["pages"]))
        reading = "\n".join(answer["pages"])
        text = _add_missing_words(text, reading) if text else reading
    if len(text) > max_chars:
        return too_long(f"the text exceeds {max_chars} characters")
    return {"pages": max(page_counts), "text": text}


def _read_with_pypdf(data: bytes, max_pages: int, max_chars: int) -> dict[str, Any]:
    return read_pdf(data, max_pages, max_chars, _read_page)


def main(arguments: list[str]) -> None:
    """Limit this process, read stdin, answer on stdout."""
    memory_mib, cpu_s, max_pages, max_chars = (int(argument) for argument in arguments[1:])
    limit_this_process(memory_mib, cpu_s)
    try:
        answer = measure_pdf(sys.stdin.buffer.read(), max_pages, max_chars)
    except MemoryError:
        answer = too_long("the document unfolds into more than memory allows")
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
