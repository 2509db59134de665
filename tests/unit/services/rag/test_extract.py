"""Documents to text: forms, charsets, structure, and everything that is refused."""

import asyncio
import io

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from bulkhead.runtime.errors import HandBack
from bulkhead.text.document_forms import form_of
from bulkhead_contracts.result import Failure
from bulkhead_services.rag import extract
from bulkhead_services.rag.chunk import chunks_of
from bulkhead_services.rag.port import DividedDocument
from bulkhead_services.rag.structure import heading_text, read_structure
from bulkhead_services.rag.webpage import read_webpage


def make_pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a line of text per line, in Helvetica."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(612, 792)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        lines = "".join(f"({line}) Tj T* " for line in text.splitlines())
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 14 TL 72 720 Td {lines}ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "media", "text"),
    [
        ("Gebühr 5 €".encode(), "text/plain", "Gebühr 5 €"),
        ("Gebühr 5 €".encode("cp1252"), "text/plain", "Gebühr 5 €"),
        ("Gebühr".encode("utf-16"), "text/plain", "Gebühr"),
        (b"\xef\xbb\xbfplain", "text/plain", "plain"),
        ("плата".encode("koi8-r"), "text/plain; charset=koi8-r", "плата"),
        ("плата".encode("koi8-r"), "text/plain; charset=no-such-charset", None),
        (b"a\r\nb\rc", "text/plain", "a\nb\nc"),
    ],
)
def test_decodes_what_it_can_name(data: bytes, media: str, text: str | None) -> None:
    decoded = extract.decode_text(data, media)
    if text is not None:
        assert decoded == text
    else:
        assert decoded != "плата"


def declares(charset: str) -> bytes:
    return f"<meta charset={charset}><p>Fares \\ud800 and +2AA- more".encode() + b"\xff"


@pytest.mark.parametrize(
    "charset", ["unicode_escape", "Raw-Unicode-Escape", "utf-7", "U7", "punycode", "idna", "undefined"]
)
def test_no_declared_charset_makes_text_that_nothing_can_hold(charset: str) -> None:
    # Python has codecs that are no charsets: some make lone halves of characters, which cannot be encoded again.
    assert extract.decode_text(declares(charset), "text/html", html=True) == declares(charset).decode("cp1252")


async def test_a_page_with_a_codec_for_a_charset_is_ingested(desk) -> None:
    assert (await desk.ingest("a.html", declares("unicode_escape"), "text/html")).outcome == "ingested"


def test_html_says_its_charset_itself() -> None:
    page = '<meta charset="iso-8859-2"><p>Łódź</p>'.encode("iso-8859-2")
    assert "Łódź" in extract.decode_text(page, "text/html", html=True)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\x00\x00", bytes(range(1, 32)) * 50, b"PK\x03\x04\x00\x00"])
def test_binary_is_refused(data: bytes) -> None:
    refused = extract.decode_text(data, "text/plain")
    assert isinstance(refused, Failure)
    assert refused.code == "binary_document"
    assert refused.hint


def test_form_by_media_type_name_and_beginning() -> None:
    assert form_of(b"x", "text/markdown", "a") == "markdown"
    assert form_of(b"x", "application/octet-stream", "a.html") == "html"
    assert form_of(b"x", "text/plain", "a.md") == "markdown"
    assert form_of(b"%PDF-1.7", "text/plain", "a.txt") == "pdf"
    refused = form_of(b"x", "image/png", "a.png")
    assert isinstance(refused, Failure) and refused.code == "unsupported_media_type"


def test_markdown_structure() -> None:
    text = "# One\n\nText here.\n\nTwo\n---\n- a\n- b\n\n```\n# no heading\n```\n| x | y |\n| 1 | 2 |\n"
    found = read_structure(text, markdown=True)
    kinds = [(b.kind, b.level, text[b.start : b.end]) for b in found.blocks]
    assert [kind for kind, _, _ in kinds] == ["heading", "paragraph", "heading", "item", "item", "code", "row", "row"]
    assert kinds[2][1] == 2
    assert [heading_text(text, b) for b in found.blocks if b.kind == "heading"] == ["One", "Two"]


def test_plain_text_headings_stand_alone() -> None:
    text = "FARE RULES\n\n1. Refunds\n\nFlex tickets are refunded.\n\n2. Fees\n\nThe fee is 20 EUR.\n"
    found = read_structure(text, markdown=False)
    assert [b.kind for b in found.blocks] == ["heading", "heading", "paragraph", "heading", "paragraph"]


def test_html_keeps_what_is_read_and_drops_what_runs() -> None:
    page = """<html><head><title>Fares</title><style>p{}</style><script>alert("no")</script></head><body>
      <h2>Refunds</h2><p>Flex <b>tickets</b>:&nbsp;80&#37;.</p><ul><li>one<li>two</ul>
      <table><tr><th>Class</th><th>Fee</th></tr><tr><td>Flex</td><td>20</td></tr></table>
      <pre>a  b
  c</pre><noscript>no</noscript></body>"""
    found = read_webpage(page)
    assert "alert" not in found.text and "p{}" not in found.text
    assert found.text.startswith(
        "# Fares\n\n## Refunds\n\nFlex tickets: 80%.\n\n- one\n- two\n\nClass | Fee\nFlex | 20\n"
    )
    assert "a  b\n  c" in found.text
    for block in found.blocks:
        assert found.text[block.start : block.end].strip() == found.text[block.start : block.end] != ""
    assert chunks_of("a", "0" * 64, found)[0].title == "Fares > Refunds"


def test_html_without_closing_tags_is_read() -> None:
    assert "hello" in read_webpage("<head><p>hello").text


async def test_pdf_text_comes_with_its_pages(desk) -> None:
    found = await desk.ingest("a.pdf", make_pdf("Flex fee is 20 EUR.", "Saver fee is 40 EUR."), "application/pdf")
    assert found.outcome == "ingested"
    reply = await desk.search("saver fee")
    assert "Saver fee is 40 EUR." in desk.blobs.kept[("rag", "acme", reply.passages[0].content.sha256)].decode()


@pytest.mark.parametrize(
    ("name", "data", "media", "code"),
    [
        ("empty.txt", b"", "text/plain", "empty_document"),
        ("blank.md", b" \n\n\t ", "text/markdown", "empty_document"),
        ("tags.html", b"<html><body><script>x()</script></body></html>", "text/html", "empty_document"),
        ("photo.txt", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" * 20, "text/plain", "binary_document"),
        ("doc.docx", b"PK\x03\x04", "application/vnd.openxmlformats", "unsupported_media_type"),
        ("torn.pdf", b"%PDF-1.7\n garbage", "application/pdf", "damaged_document"),
        ("scan.pdf", make_pdf(""), "application/pdf", "no_text"),
        ("locked.pdf", make_pdf("secret", password="pw"), "application/pdf", "encrypted_document"),
    ],
)
async def test_bad_documents_are_rejected_with_a_reason(desk, name: str, data: bytes, media: str, code: str) -> None:
    reply = await desk.ingest(name, data, media)
    assert reply.outcome == "rejected"
    assert reply.failure.code == code
    assert reply.failure.message and reply.failure.hint
    assert (await desk.search("secret garbage")).passages == ()


@pytest.mark.slow
@pytest.mark.needs("hanging-parser")
async def test_a_page_that_hangs_its_parser_is_cut(make_desk) -> None:
    desk = make_desk(parse_timeout_s=8.0)  # a good page needs a new parser, which takes long beside other tests
    reply = await desk.ingest("bomb.html", "<!--" * 300_000, "text/html")
    assert reply.outcome == "rejected"
    assert reply.failure.code == "damaged_document"
    assert (await desk.ingest("good.html", "<p>fine</p>", "text/html")).outcome == "ingested"


@pytest.mark.needs("hanging-parser")
async def test_one_tenants_hanging_pages_leave_another_a_parser(make_desk) -> None:
    library = make_desk(parse_timeout_s=20.0).library
    bomb = b"<!--" * 300_000
    hanging = [
        asyncio.create_task(library.divide_document("acme", "ada", f"{n}.html", "0" * 64, "text/html", bomb))
        for n in range(3)
    ]
    await asyncio.sleep(0)
    found = await library.divide_document("other", "bob", "good.html", "0" * 64, "text/html", b"<p>fine</p>")
    assert isinstance(found, DividedDocument) and "fine" in found.text
    assert not any(one.done() for one in hanging), "the small page waited for none of them"
    for one in hanging:
        one.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_the_receipt_counts_pages_that_hold_almost_no_text_also_when_it_is_asked_again(desk) -> None:
    text = "Flexible fares are refunded within fourteen days of the journey, without a fee. " * 3
    scans = make_pdf(text, *["RECEIVED 2024-05-01"] * 11)
    first, again = [await desk.ingest("a.pdf", scans, "application/pdf", task) for task in ("t1", "t2")]
    assert (first.outcome, first.pages, first.sparse_pages) == ("ingested", 12, 11)
    assert (again.outcome, again.pages, again.sparse_pages) == ("unchanged", 12, 11)
    plain = await desk.ingest("a.md", "short")
    assert (plain.pages, plain.sparse_pages) == (0, 0) and b"pages" not in plain.encode()


@pytest.mark.slow
@pytest.mark.needs("hanging-parser")
async def test_one_persons_hanging_pages_delay_a_colleague_by_one_of_them(make_desk) -> None:
    library = make_desk(parse_timeout_s=6.0).library
    bomb = b"<!--" * 300_000
    hanging = [
        asyncio.create_task(library.divide_document("acme", "ada", f"{n}.html", "0" * 64, "text/html", bomb))
        for n in range(4)
    ]
    await asyncio.sleep(0)
    divided = await library.divide_document("acme", "bob", "good.html", "0" * 64, "text/html", b"<p>fine</p>")
    assert isinstance(divided, DividedDocument) and "fine" in divided.text
    assert sum(page.done() for page in hanging) <= 1, "before ada's second page"
    for page in hanging:
        page.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_document_without_a_parser_goes_back_to_the_inbox(make_desk, monkeypatch) -> None:
    monkeypatch.setattr("bulkhead_services.rag.effects.PARSER_PATIENCE_S", 0.05)
    library = make_desk().library
    async with library._parsing.hold_slot("acme"):
        with pytest.raises(HandBack):
            await library.divide_document("acme", "bob", "good.html", "0" * 64, "text/html", b"<p>fine</p>")
