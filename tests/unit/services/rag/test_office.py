"""DOCX and XLSX: text with structure and places, from files of real programs; hostile ones are refused."""

import io
import zipfile
from pathlib import Path

import pytest

from bulkhead_services.rag.office import package, spreadsheet
from bulkhead_services.rag.office.package import UnreadableOffice
from bulkhead_services.rag.office.spreadsheet import read_xlsx
from bulkhead_services.rag.office.word import read_docx

FILES = Path(__file__).parent / "files"
"""As python-docx and openpyxl write them."""
MOST = 4_000_000
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
ENTITIES = '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
W = 'xmlns:w="http://purl.oclc.org/ooxml/wordprocessingml/main"'


def packed(main: str, parts: dict[str, str], **relations: str) -> bytes:
    """A package whose main part names others by kind."""
    rows = "".join(f'<Relationship Id="{kind}" Type="{TYPES}/{kind}" Target="{to}"/>' for kind, to in relations.items())
    root = f'<Relationship Id="r" Type="{TYPES}/officeDocument" Target="/{main}"/>'
    folder, _, name = main.rpartition("/")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, inside in (("_rels/.rels", root), (f"{folder}/_rels/{name}.rels", rows)):
            archive.writestr(path, f"<Relationships>{inside}</Relationships>")
        for path, text in parts.items():
            archive.writestr(path, text)
    return out.getvalue()


def word(body: str, **more: str) -> bytes:
    return packed("word/document.xml", {"word/document.xml": f"<w:document {W}>{body}</w:document>", **more})


def sheet(rows: str, **parts: str) -> bytes:
    book = '<workbook xmlns:r="r"><sheets><sheet name="Prices" sheetId="1" r:id="s1"/></sheets></workbook>'
    whole = {"xl/workbook.xml": book, "xl/sheet1.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>", **parts}
    named = {name.partition("/")[2].removesuffix(".xml"): name.partition("/")[2] for name in parts}
    return packed("xl/workbook.xml", whole, s1="sheet1.xml", **named)


def test_a_document_keeps_headings_items_and_tables_row_by_row():
    read = read_docx((FILES / "handbook.docx").read_bytes(), MOST)
    kinds = [(block.kind, block.level, read.text[block.start : block.end]) for block in read.blocks]
    assert kinds == [
        ("heading", 1, "# Travel handbook"),
        ("heading", 1, "# Fares"),
        ("paragraph", 0, "A flexible fare costs 60.00 EUR."),
        ("item", 0, "- first item"),
        ("heading", 2, "## Refunds"),
        ("row", 0, "Route | Price | Days"),
        ("row", 0, "Berlin | 40 | 14"),
        ("row", 0, "Paris | 55.5 | 7"),
        ("paragraph", 0, "After table with tab."),
    ]


def test_a_workbook_names_its_sheets_and_cells_and_writes_values_as_people_read_them():
    read = read_xlsx((FILES / "prices.xlsx").read_bytes(), MOST)
    assert [read.text[block.start : block.end] for block in read.blocks] == [
        "# Prices",
        "A1: City | B1: Price | C1: From | D1: Share",
        "A2 City: Berlin | B2 Price: 40.5 | C2 From: 2024-03-15 | D2 Share: 19%",
        "A3 City: Paris | B3 Price: 0.3 | C3 From: 2024-03-15 08:30:00",
        "A4 City: Sum | B4 Price: =SUM(B2:B3) | D4 Share: TRUE",
        "# Old (hidden)",
        "C5: 7",
        "C6: seven",
    ]


async def test_both_are_ingested_found_and_cited_by_their_places(desk):
    for name, media in (("handbook.docx", WORD), ("prices.xlsx", "application/octet-stream")):
        assert (await desk.ingest(name, (FILES / name).read_bytes(), media)).outcome == "ingested"
    found = await desk.search("price Berlin")
    assert {passage.citation.document for passage in found.passages} == {"handbook.docx", "prices.xlsx"}
    cited = [await desk.blobs.get("acme", passage.content) for passage in found.passages]
    assert any(b"# Prices" in text and b"B2 Price: 40.5" in text for text in cited), "the sheet and the cell are named"


def test_what_a_page_does_not_show_is_left_out_and_a_strict_file_reads_alike():
    run = "<w:r><w:t>{}</w:t></w:r>"
    shown, gone = run.format("kept "), "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
    deleted = "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
    code = "<w:r><w:instrText>PAGE</w:instrText></w:r>"
    moved = f"<w:moveFrom>{run.format('moved')}</w:moveFrom>"
    table = "<w:tbl><w:tr><w:tc><w:p>{}</w:p>{}</w:tc></w:tr></w:tbl>"
    tables = table.format(run.format("outer"), table.format(run.format("inner"), ""))
    text = read_docx(word(f"<w:p>{shown}{gone}{deleted}{code}{moved}</w:p>{tables}"), MOST).text
    assert text == "kept\n\nouter inner\n"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"PK\x03\x04 no zip", "damaged_document"),
        (lambda: word("<w:p>"), "damaged_document"),
        (
            lambda: packed("word/document.xml", {"word/document.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}),
            "damaged_document",
        ),
        (lambda: word("<w:p>" * 10_000), "damaged_document"),
        (lambda: word("<w:p><w:r><w:t>" + "x" * 50_000 + "</w:t></w:r></w:p>"), "document_too_long"),
        (lambda: word(" " * 2_000_000), "document_too_long"),
        (lambda: packed("a/b.xml", {f"p{n}": "" for n in range(100)}), "document_too_long"),
        (lambda: packed("word/absent.xml", {}), "damaged_document"),
    ],
    ids=["no zip", "cut off", "entities", "deep", "long", "bomb", "many parts", "no document"],
)
def test_a_hostile_document_is_refused_by_name(make, code, monkeypatch):
    monkeypatch.setattr(package, "MAX_INFLATED_BYTES", 1_000_000)
    monkeypatch.setattr(package, "MAX_PARTS", 100)
    with pytest.raises(UnreadableOffice) as told:
        read_docx(make(), 40_000)
    assert told.value.code == code


def test_a_sheet_that_unfolds_is_refused(monkeypatch):
    monkeypatch.setattr(spreadsheet, "MAX_CELLS", 2_000)
    shared = "<sst><si><t>" + "x" * 30_000 + "</t></si></sst>"
    cells = '<c t="s"><v>0</v></c>' * 1_000
    with pytest.raises(UnreadableOffice, match="characters"):
        read_xlsx(sheet(f"<row>{cells}</row>", **{"xl/sharedStrings.xml": shared}), MOST)
    with pytest.raises(UnreadableOffice, match="cells"):
        read_xlsx(sheet("<row>" + "<c/>" * (spreadsheet.MAX_CELLS + 1) + "</row>"), MOST)
    odd = '<row r="x"><c r="??"><v>1e999</v></c><c t="s"><v>9</v></c><c s="77"><v>abc</v></c></row><row><c/></row>'
    assert read_xlsx(sheet(odd), MOST).text == "# Prices\n\nA1: inf | C1: abc\n"


async def test_a_bomb_ends_its_parser_and_nothing_else(desk):
    data = word("<w:p><w:r><w:t>" + "x" * 5_000_000 + "</w:t></w:r></w:p>")
    refused = await desk.ingest("bomb.docx", data, WORD)
    assert (refused.outcome, refused.failure.code) == ("rejected", "document_too_long")
    assert (await desk.ingest("good.docx", (FILES / "handbook.docx").read_bytes(), WORD)).outcome == "ingested"
