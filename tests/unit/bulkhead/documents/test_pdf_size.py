"""Sizes of PDFs as the largest of what their readers see."""

import io

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, NumberObject, TextStringObject

from bulkhead.documents.pdf_size import measure_pdf

INLINE = "/Span <</ActualText (words that nobody sees)>> BDC (x) Tj EMC"
NAMED = "/Span /MC0 BDC (x) Tj EMC"


def names(**values: object) -> DictionaryObject:
    return DictionaryObject({NameObject(f"/{name}"): value for name, value in values.items()})


def tagged_pdf(drawing: str, *, in_form: bool) -> bytes:
    """A page that draws this, or shows it three times as a form of its own."""
    writer = PdfWriter()
    font = names(Type=NameObject("/Font"), Subtype=NameObject("/Type1"), BaseFont=NameObject("/Helvetica"))
    properties = names(MC0=writer._add_object(names(ActualText=TextStringObject("words that nobody sees"))))
    resources = names(Font=names(F1=font), Properties=properties)
    page, drawn, shown = writer.add_blank_page(612, 792), DecodedStreamObject(), DecodedStreamObject()
    drawn.set_data(f"BT /F1 12 Tf 72 720 Td {drawing} ET".encode())
    shown.set_data(b"/F0 Do " * 3)
    drawn.update(names(Type=NameObject("/XObject"), Subtype=NameObject("/Form"), Resources=resources))
    form = writer._add_object(drawn)
    page[NameObject("/Resources")] = names(XObject=names(F0=form)) if in_form else resources
    page[NameObject("/Contents")] = writer._add_object(shown) if in_form else form
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def stream(data: bytes, fields: bytes = b"") -> bytes:
    return b"<</Length %d%b>>stream\n%b\nendstream" % (len(data), fields, data)


SEEN, HIDDEN = b"(seen) Tj", b"0 -20 Td " + b"(hidden) Tj " * 40
CATALOG, PAGES = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9999 999]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>%b>>%b>>"


def drawn(text: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return stream(before + b"BT /F1 12 Tf 72 720 Td " + text + b" ET" + after)


def raw_pdf(
    *objects: tuple[int, bytes],
    pages: bytes = PAGES,
    resources: bytes = b"",
    page_fields: bytes = b"",
    revised: bytes = b"",
) -> bytes:
    """A page. revised: definitions behind its end, which its index does not name."""
    rows = sorted([(1, CATALOG), (2, pages), (3, PAGE % (resources, page_fields)), (5, FONT), *objects])
    out, index = bytearray(b"%PDF-1.7\n"), b"0000000000 65535 f \n"
    for number, body in rows:
        index += b"%010d 00000 n \n" % len(out)
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    size, end = len(rows) + 1, b"startxref\n%d\n%%%%EOF\n" % len(out)
    out += b"xref\n0 %d\n%btrailer <</Size %d/Root 1 0 R>>\n%b" % (size, index, size, end)
    return bytes(out + revised + end if revised else out)


def image(fields: bytes, end: bytes = b"\nEI\n") -> bytes:
    return b"BI /W 1 /H 1 /BPC 8 %b ID x%b" % (fields, end)


IMAGE_END = b" BI /W 1 /H 1 /BPC 8 /CS /G ID >\xff\xd9\nEI"
FORM = stream(
    b"BT /F1 1 Tf 0 9 Td " + HIDDEN + b" ET",
    b"/Type/XObject/Subtype/Form/BBox[0 -50 999 50]/Resources<</Font<</F1 5 0 R>>>>",
)


@pytest.mark.parametrize(
    ("pdf", "times"),
    [
        # What the index does not name is read wherever a reader finds the index wrong.
        (raw_pdf((4, drawn(SEEN)), revised=b"4 0 obj\n%b\nendobj\n" % drawn(HIDDEN)), 40),
        # Where such an image ends, readers do not agree.
        (raw_pdf((4, drawn(HIDDEN, image(b"/F /DCT"), IMAGE_END))), 40),
        (raw_pdf((4, drawn(HIDDEN, image(b"/F /LZW"), IMAGE_END))), 40),
        # Some show annotations, and the value of a form's field for each of its places.
        (
            raw_pdf(
                (4, drawn(SEEN)),
                (6, b"<</Subtype/FreeText/F 4/Rect[9 9 990 99]/AP<</N 7 0 R>>>>"),
                (7, FORM),
                page_fields=b"/Annots[6 0 R 6 0 R 6 0 R]",
            ),
            120,
        ),
        (
            raw_pdf(
                (4, drawn(SEEN)),
                (6, b"<</Subtype/Widget/FT/Tx/Parent 7 0 R/Rect[9 9 99 99]>>"),
                (7, b"<</V(hidden)/T(x)>>"),
                page_fields=b"/Annots[6 0 R 6 0 R 6 0 R]",
            ),
            3,
        ),
        # Some show the text of a mask or a pattern for each thing that is painted with it.
        (
            raw_pdf(
                (4, stream(b"/G1 gs 0 0 9 9 re f 0 0 9 9 re f 0 0 9 9 re f")),
                (6, b"<</SMask<</S/Luminosity/G 7 0 R>>>>"),
                (7, FORM),
                resources=b"/ExtGState<</G1 6 0 R>>",
            ),
            120,
        ),
        (
            raw_pdf(
                (4, stream(b"/Pattern cs /P1 scn 0 0 9 9 re f 0 0 9 9 re f")),
                (6, FORM),
                resources=b"/Pattern<</P1 6 0 R>>",
            ),
            80,
        ),
    ],
    ids=["index", "image-that-pdfium-ends", "image-that-pypdf-ends", "annotation", "field", "mask", "pattern"],
)
def test_each_word_that_any_reader_shows_is_counted(pdf: bytes, times: int) -> None:
    assert measure_pdf(pdf, 10, 10_000)["text"].count("hidden") == times


def test_the_largest_number_of_pages_counts() -> None:
    pdf = raw_pdf((4, drawn(SEEN)), pages=b"<</Type/Pages/Kids[3 0 R 3 0 R 3 0 R]/Count 1>>")
    assert measure_pdf(pdf, 10, 10_000)["pages"] == 3
    assert measure_pdf(pdf, 2, 10_000)["code"] == "document_too_long"


@pytest.mark.parametrize(
    ("pdf", "reason"),
    [
        (raw_pdf((4, drawn(SEEN)), (4, drawn(HIDDEN))), "object 4 is defined twice"),
        (raw_pdf((4, drawn(SEEN)), revised=b"4 0 obj 1 endobj 4 0 obj 2 endobj "), "object 4 is defined twice"),
        (raw_pdf((4, stream(b"")), (6, drawn(SEEN)), resources=b"/Pattern<</P1 6 0 R>>"), "text stands in a pattern"),
        (raw_pdf((4, drawn(HIDDEN, image(b"/CS /CS0", b"\nEIQ\n"), IMAGE_END))), "text follows an inline image"),
    ],
    ids=["same-revision", "later-revision", "pattern", "image"],
)
def test_what_may_be_read_in_further_ways_is_refused(pdf: bytes, reason: str) -> None:
    assert reason in measure_pdf(pdf, 10, 10_000)["message"]


def test_a_later_revision_and_a_plain_image_are_read_as_before() -> None:
    writer = PdfWriter(io.BytesIO(raw_pdf((4, drawn(SEEN, image(b"/CS /G"))))), incremental=True)
    writer.pages[0][NameObject("/Rotate")] = NumberObject(0)
    out = io.BytesIO()
    writer.write(out)
    assert out.getvalue().count(b"%%EOF") == 2
    assert measure_pdf(out.getvalue(), 10, 10_000) == {"pages": 1, "text": "seen"}


@pytest.mark.parametrize("in_form", [False, True])
@pytest.mark.parametrize("drawing", [INLINE, NAMED])
def test_text_that_stands_for_what_is_drawn_is_told_beside_it(drawing: str, in_form: bool) -> None:
    words = measure_pdf(tagged_pdf(drawing, in_form=in_form), 10, 10_000)["text"].split()
    times = 3 if in_form else 1
    assert words.count("x") == words.count("nobody") == times


def test_a_replacement_counts_each_time_that_something_is_drawn_in_it() -> None:
    drawing = "/Span <</ActualText (hidden )>> BDC (x) Tj /P BMC (y) Tj EMC (z) Tj EMC (seen) Tj"
    assert measure_pdf(tagged_pdf(drawing, in_form=False), 10, 10_000)["text"].count("hidden") == 3


def test_text_that_nobody_sees_counts_against_the_bound() -> None:
    assert measure_pdf(tagged_pdf(INLINE, in_form=False), 10, 20)["code"] == "document_too_long"
