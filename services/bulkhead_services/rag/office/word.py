"""DOCX to text with structure. Enters: the package. Leaves: text and blocks: headings, items, table rows, paragraphs.

Left out is what a reader of the page does not see: deleted and hidden text, codes of fields, fallbacks of drawings.
Notes follow the text. Headers and footers, which every page repeats, are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bulkhead_services.rag.office.package import OfficePackage, TextCount
from bulkhead_services.rag.structure import BlockKind, BlockText, ExtractedText, join_blocks

_SKIPPED = frozenset({"Fallback", "del", "moveFrom", "delText", "instrText"})
_OFF = frozenset({"0", "false", "off"})
_HEADING, _TITLE = "heading ", "title"
_MAX_LEVEL = 6
_MAX_BASES = 16
_NOTES = ("footnotes", "endnotes")


def read_docx(data: bytes, max_chars: int) -> ExtractedText:
    """Text of a document. Raises UnreadableOffice."""
    package = OfficePackage(data)
    main = package.main_part()
    parts = {relation.kind: relation.part for relation in package.relations(main).values()}
    styles = _StyleReader()
    if package.has_part(parts.get("styles", "")):
        package.read_part(parts["styles"], styles)
    reader = _WordReader(styles, TextCount(max_chars))
    for part in (main, *(parts[kind] for kind in _NOTES if package.has_part(parts.get(kind, "")))):
        package.read_part(part, reader)
    return join_blocks(reader.blocks)


@dataclass(slots=True)
class _Style:
    level: int = 0
    base: str = ""
    is_item: bool = False


class _StyleReader:
    """Styles that are headings or items, from what they are based on too."""

    def __init__(self) -> None:
        self._styles: dict[str, _Style] = {}
        self._style = _Style()

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "style":
            self._style = self._styles[attributes.get("styleId", "")] = _Style()
        elif name == "name":
            self._style.level = _named_level(value) or self._style.level
        elif name == "basedOn":
            self._style.base = value
        elif name == "outlineLvl":
            self._style.level = self._style.level or _outline_level(value)
        elif name == "numId":
            self._style.is_item = value != "0"

    def end_element(self, name: str) -> None:
        pass

    def add_text(self, text: str) -> None:
        pass

    def find_style(self, style_id: str) -> _Style:
        """A style that is a heading or an item, or one that is neither."""
        style: _Style | None = None
        for _ in range(_MAX_BASES):
            style = self._styles.get(style_id)
            if style is None or style.level or style.is_item:
                break
            style_id = style.base
        return style or _Style()


def _named_level(name: str) -> int:
    """Names of Word's own styles are English in every language."""
    name = name.lower()
    if name == _TITLE:
        return 1
    number = name.removeprefix(_HEADING)
    return min(int(number), _MAX_LEVEL) if name.startswith(_HEADING) and number in "123456789" and number else 0


def _outline_level(value: str) -> int:
    return min(int(value) + 1, _MAX_LEVEL) if value in ("0", "1", "2", "3", "4", "5", "6", "7", "8") else 0


@dataclass(slots=True)
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    style: str = ""
    level: int = 0
    is_item: bool | None = None


@dataclass(slots=True)
class _Table:
    cells: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class _WordReader:
    def __init__(self, styles: _StyleReader, count: TextCount) -> None:
        self._styles, self._count = styles, count
        self._skipped = 0
        """Depth within an element that is left out."""
        self._paragraphs: list[_Paragraph] = []
        """A text box stands in a paragraph and has its own."""
        self._tables: list[_Table] = []
        self._in_run = self._in_text = self._is_hidden = False
        self.blocks: list[BlockText] = []

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._skipped or name in _SKIPPED:
            self._skipped += 1
        elif name == "p":
            self._paragraphs.append(_Paragraph())
        elif name == "tbl":
            self._tables.append(_Table())
        elif name in ("tr", "tc") and self._tables:
            self._tables[-1].texts = []
            if name == "tr":
                self._tables[-1].cells = []
        elif name == "r":
            self._in_run, self._is_hidden = True, False
        elif self._paragraphs:
            self._start_inside(name, attributes.get("val", ""))

    def _start_inside(self, name: str, value: str) -> None:
        paragraph = self._paragraphs[-1]
        if not self._in_run:
            if name == "pStyle":
                paragraph.style = value
            elif name == "outlineLvl":
                paragraph.level = _outline_level(value)
            elif name == "numId":
                paragraph.is_item = value != "0"
        elif name == "vanish":
            self._is_hidden = value not in _OFF
        elif name == "t":
            self._in_text = True
        elif name in ("tab", "br", "cr"):
            paragraph.pieces.append(" ")
        elif name == "noBreakHyphen":
            paragraph.pieces.append("-")

    def end_element(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._in_text = False
        elif name == "r":
            self._in_run = False
        elif name == "p" and self._paragraphs:
            self._end_paragraph(self._paragraphs.pop())
        elif name == "tc" and self._tables:
            table = self._tables[-1]
            table.cells.append(" ".join(table.texts))
            table.texts = []
        elif name == "tr" and self._tables:
            self._add_block("row", 0, " | ".join(cell for cell in self._tables[-1].cells if cell), self._tables[:-1])
            self._tables[-1].cells = []
        elif name == "tbl" and self._tables:
            self._tables.pop()

    def add_text(self, text: str) -> None:
        if self._in_text and not self._skipped and not self._is_hidden and self._paragraphs:
            self._count.add(text)
            self._paragraphs[-1].pieces.append(text)

    def _end_paragraph(self, paragraph: _Paragraph) -> None:
        text = " ".join("".join(paragraph.pieces).split())
        style = self._styles.find_style(paragraph.style)
        if level := paragraph.level or style.level:
            self._add_block("heading", level, text, self._tables)
        else:
            is_item = style.is_item if paragraph.is_item is None else paragraph.is_item
            self._add_block("item" if is_item else "paragraph", 0, text, self._tables)

    def _add_block(self, kind: BlockKind, level: int, text: str, tables: list[_Table]) -> None:
        """A block of the text, or a part of the cell in which it stands."""
        if text and tables:
            tables[-1].texts.append(text)
        elif text:
            self.blocks.append(BlockText(kind, level, text))
