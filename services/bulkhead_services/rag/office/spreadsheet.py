"""XLSX to text with structure. Enters: the package. Leaves: text and blocks: each sheet a heading, each row a block.

A cell is written with its place and, where the sheet begins with a row of words, with the word above: `B7 Price: 40`.
Values are those that were stored last; a formula is not computed, and stands for itself where none was stored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bulkhead_services.rag.office.package import OfficePackage, TextCount, UnreadableOffice
from bulkhead_services.rag.structure import BlockText, ExtractedText, join_blocks

MAX_CELLS = 500_000
MAX_SHEETS = 1_000
MAX_HEADER_CHARS, MAX_FORMULA_CHARS = 60, 200
_PLACE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
_DATES = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))
_PERCENTS = frozenset((9, 10))
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')
_DATE_LETTERS = re.compile("[ymdhs]", re.IGNORECASE)
_DAY_0, _DAY_0_OF_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)
_TRUE = frozenset({"1", "true", "on"})


def read_xlsx(data: bytes, max_chars: int) -> ExtractedText:
    """Text of a workbook. Raises UnreadableOffice."""
    package, count = OfficePackage(data), TextCount(max_chars)
    main = package.main_part()
    relations = package.relations(main)
    parts = {relation.kind: relation.part for relation in relations.values()}
    workbook, strings, styles = _WorkbookReader(), _StringReader(TextCount(max_chars)), _FormatReader()
    package.read_part(main, workbook)
    for kind, reader in (("sharedStrings", strings), ("styles", styles)):
        if package.has_part(parts.get(kind, "")):
            package.read_part(parts[kind], reader)
    blocks: list[BlockText] = []
    cells = _CellCount()
    for sheet in workbook.sheets:
        relation = relations.get(sheet.relation)
        if relation is None or not package.has_part(relation.part):
            continue  # A sheet of a chart alone has no cells.
        values = _CellValues(strings.strings, styles.kinds(), _DAY_0_OF_1904 if workbook.is_of_1904 else _DAY_0)
        rows = _SheetReader(values, count, cells)
        package.read_part(relation.part, rows)
        if rows.blocks:
            blocks += [BlockText("heading", 1, sheet.title), *rows.blocks]
    return join_blocks(blocks)


class _CellCount:
    count = 0

    def add(self) -> None:
        """Count a cell. Raises UnreadableOffice."""
        self.count += 1
        if self.count > MAX_CELLS:
            raise UnreadableOffice("document_too_long", f"its cells exceed {MAX_CELLS}")


@dataclass(frozen=True, slots=True)
class _Sheet:
    title: str
    relation: str


class _WorkbookReader:
    def __init__(self) -> None:
        self.sheets: list[_Sheet] = []
        self.is_of_1904 = False

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "workbookPr":
            self.is_of_1904 = attributes.get("date1904", "") in _TRUE
        elif name == "sheet":
            if len(self.sheets) >= MAX_SHEETS:
                raise UnreadableOffice("document_too_long", f"its sheets exceed {MAX_SHEETS}")
            hidden = "" if attributes.get("state", "visible") == "visible" else " (hidden)"
            title = " ".join(attributes.get("name", "").split())[:100] or f"Sheet {len(self.sheets) + 1}"
            self.sheets.append(_Sheet(title + hidden, attributes.get("id", "")))

    def end_element(self, name: str) -> None:
        pass

    def add_text(self, text: str) -> None:
        pass


class _StringReader:
    """The strings that cells share; readings of characters (`rPh`) are none of the text."""

    def __init__(self, count: TextCount) -> None:
        self._count = count
        self._pieces: list[str] = []
        self._in_text = False
        self._in_reading = False
        self.strings: list[str] = []

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "rPh":
            self._in_reading = True
        elif name == "t":
            self._in_text = not self._in_reading

    def end_element(self, name: str) -> None:
        if name == "si":
            self.strings.append("".join(self._pieces))
            self._pieces = []
        elif name == "t":
            self._in_text = False
        elif name == "rPh":
            self._in_reading = False

    def add_text(self, text: str) -> None:
        if self._in_text:
            self._count.add(text)
            self._pieces.append(text)


class _FormatReader:
    """Formats of numbers: they stand for a date, a share in percent, or themselves."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}
        self._ids: list[int] = []
        self._in_cells = False

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "numFmt":
            self._codes[_whole_number(attributes.get("numFmtId", ""))] = attributes.get("formatCode", "")
        elif name == "cellXfs":
            self._in_cells = True
        elif name == "xf" and self._in_cells:
            self._ids.append(_whole_number(attributes.get("numFmtId", "")))

    def end_element(self, name: str) -> None:
        if name == "cellXfs":
            self._in_cells = False

    def add_text(self, text: str) -> None:
        pass

    def kinds(self) -> list[str]:
        """By the number of a cell's style."""
        return [_format_kind(format_id, self._codes.get(format_id)) for format_id in self._ids]


def _format_kind(format_id: int, code: str | None) -> str:
    if code is None:
        return "date" if format_id in _DATES else "percent" if format_id in _PERCENTS else ""
    bare = _QUOTED.sub("", code)
    if "%" in bare:
        return "percent"
    return "date" if _DATE_LETTERS.search(bare) else ""


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1


@dataclass(frozen=True, slots=True)
class _CellValues:
    strings: list[str]
    kinds: list[str]
    day_0: datetime

    def text_of(self, kind: str, style: str, raw: str) -> str:
        """A cell's value as people read it."""
        if kind == "s":
            place = _whole_number(raw)
            return self.strings[place] if 0 <= place < len(self.strings) else ""
        if kind == "b":
            return "TRUE" if raw.strip() in _TRUE else "FALSE"
        return raw if kind in ("str", "inlineStr", "e", "d") else self._number_text(style, raw)

    def _number_text(self, style: str, raw: str) -> str:
        try:
            number = float(raw)
        except ValueError:
            return raw
        place = _whole_number(style)
        meaning = self.kinds[place] if 0 <= place < len(self.kinds) else ""
        if meaning == "percent":
            return f"{number * 100:.12g}%"
        return (self._date_text(number) if meaning == "date" else "") or f"{number:.15g}"

    def _date_text(self, days: float) -> str:
        try:
            moment = self.day_0 + timedelta(seconds=round(days * 86_400))
        except (OverflowError, ValueError):
            return ""
        if 0 <= days < 1:
            return moment.strftime("%H:%M:%S")
        return moment.strftime("%Y-%m-%d" if days == int(days) else "%Y-%m-%d %H:%M:%S")


@dataclass(slots=True)
class _Cell:
    column: str = ""
    row: int = 0
    kind: str = ""
    style: str = ""
    pieces: list[str] = field(default_factory=list)
    formula: str = ""


class _SheetReader:
    def __init__(self, values: _CellValues, count: TextCount, cells: _CellCount) -> None:
        self._values, self._count, self._cells = values, count, cells
        self._row = self._column = 0
        self._cell: _Cell | None = None
        self._reads = ""
        self._texts: dict[str, str] = {}
        self._has_words_alone = True
        self._headers: dict[str, str] | None = None
        """Words of the first row, by column; None before it, empty where it holds numbers or one cell."""
        self.blocks: list[BlockText] = []

    def start_element(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "row":
            number = _whole_number(attributes.get("r", ""))
            self._row, self._column = number if number > 0 else self._row + 1, 0
            self._texts, self._has_words_alone = {}, True
        elif name == "c":
            self._cells.add()
            self._column += 1
            place = _PLACE.fullmatch(attributes.get("r", ""))
            column = place[1] if place else _column_name(self._column)
            self._column = _column_number(column)
            self._cell = _Cell(column, self._row, attributes.get("t", "n"), attributes.get("s", ""))
        elif name in ("v", "t", "f"):
            self._reads = name if self._cell is not None else ""

    def end_element(self, name: str) -> None:
        if name in ("v", "t", "f"):
            self._reads = ""
        elif name == "c" and self._cell is not None:
            self._end_cell(self._cell)
            self._cell = None
        elif name == "row":
            self._end_row()

    def add_text(self, text: str) -> None:
        if self._cell is not None and self._reads == "f":
            self._cell.formula = (self._cell.formula + text)[:MAX_FORMULA_CHARS]
        elif self._cell is not None and self._reads:
            self._cell.pieces.append(text)

    def _end_cell(self, cell: _Cell) -> None:
        raw = "".join(cell.pieces)
        value = self._values.text_of(cell.kind, cell.style, raw) if raw else f"={cell.formula}" if cell.formula else ""
        text = " ".join(value.split())
        if text:
            self._texts[cell.column] = text
            self._has_words_alone &= cell.kind in ("s", "str", "inlineStr")

    def _end_row(self) -> None:
        if not self._texts:
            return
        headers = self._headers or {}
        row = " | ".join(
            f"{column}{self._row}{' ' + headers[column] if column in headers else ''}: {text}"
            for column, text in self._texts.items()
        )
        self._count.add(row)
        self.blocks.append(BlockText("row", 0, row))
        if self._headers is None:
            is_header = self._has_words_alone and len(self._texts) > 1
            named = self._texts.items() if is_header else ()
            self._headers = {column: text for column, text in named if len(text) <= MAX_HEADER_CHARS}


def _column_name(number: int) -> str:
    name = ""
    while number:
        number, letter = divmod(number - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def _column_number(name: str) -> int:
    number = 0
    for letter in name:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number
