"""Text of PDFs, and what readers may show in its place."""

import io

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, TextStringObject

from bulkhead.documents.pdf import read_pdf

INLINE = "/Span <</ActualText (words that nobody sees)>> BDC (x) Tj EMC"
NAMED = "/Span /MC0 BDC (x) Tj EMC"


def names(**values: object) -> DictionaryObject:
    return DictionaryObject({NameObject(f"/{name}"): value for name, value in values.items()})


def pdf_of(drawing: str, *, in_form: bool) -> bytes:
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


@pytest.mark.parametrize("in_form", [False, True])
@pytest.mark.parametrize("drawing", [INLINE, NAMED])
def test_text_that_stands_for_what_is_drawn_is_told_beside_it(drawing: str, in_form: bool) -> None:
    answer = read_pdf(pdf_of(drawing, in_form=in_form), 10, 10_000)
    times = 3 if in_form else 1
    assert answer["pages"][0].split() == ["x"] * times
    assert answer["replacements"] == [" ".join(["words that nobody sees"] * times)]


def test_a_replacement_counts_each_time_that_something_is_drawn_in_it() -> None:
    drawing = "/Span <</ActualText (hidden)>> BDC (x) Tj /P BMC (y) Tj EMC (z) Tj EMC (seen) Tj"
    assert read_pdf(pdf_of(drawing, in_form=False), 10, 10_000)["replacements"] == ["hidden hidden hidden"]


def test_text_that_nobody_sees_counts_against_the_bound() -> None:
    assert read_pdf(pdf_of(INLINE, in_form=False), 10, 20)["code"] == "document_too_long"
