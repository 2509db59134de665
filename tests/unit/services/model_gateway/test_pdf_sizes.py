"""Sizes of PDFs are read within a time for each request, and no request waits for all of another."""

import asyncio
import base64
import io

from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, NameObject

from bulkhead_services.model_gateway.context.pdf_sizes import PdfSizeReader


def pdf_of(pages: int, drawing: bytes) -> bytes:
    """Pages that share one content."""
    writer, stream = PdfWriter(), DecodedStreamObject()
    stream.set_data(b"BT /F1 12 Tf 72 720 Td " + drawing + b" ET")
    content = writer._add_object(stream)
    for _ in range(pages):
        writer.add_blank_page(612, 792)[NameObject("/Contents")] = content
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def slow_pdf(number: int) -> bytes:
    return pdf_of(600, b"(x) Tj " * 15_000 + b"(%d) Tj" % number)


def request_of(*documents: bytes) -> dict[str, object]:
    parts = [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + base64.b64encode(document).decode()}}
        for document in documents
    ]
    return {"messages": [{"role": "user", "content": parts}]}


async def test_pdfs_that_take_too_long_together_are_left_out() -> None:
    reader = PdfSizeReader(request_s=0.05)
    began_s = asyncio.get_running_loop().time()
    sizes = await reader.read_sizes("acme", "ada", request_of(*map(slow_pdf, range(4))))
    assert len(sizes) == 4 and all("it was not read" in size.problem for size in sizes.values())
    assert asyncio.get_running_loop().time() - began_s < 10


async def test_a_request_with_one_pdf_waits_for_one_of_another_request() -> None:
    reader = PdfSizeReader(request_s=60.0)
    many = asyncio.create_task(reader.read_sizes("acme", "ada", request_of(*map(slow_pdf, range(3)))))
    await asyncio.sleep(0)
    [size] = (await reader.read_sizes("acme", "ada", request_of(pdf_of(2, b"(hello) Tj")))).values()
    assert size.pages == 2 and not many.done()
    many.cancel()
    await asyncio.gather(many, return_exceptions=True)


async def test_a_colleagues_requests_with_pdfs_hold_a_person_up_by_one() -> None:
    reader = PdfSizeReader(request_s=60.0)
    many = [asyncio.create_task(reader.read_sizes("acme", "ada", request_of(slow_pdf(number)))) for number in range(4)]
    await asyncio.sleep(0)
    [size] = (await reader.read_sizes("acme", "bob", request_of(pdf_of(2, b"(hello) Tj")))).values()
    assert size.pages == 2 and sum(request.done() for request in many) <= 1
    for request in many:
        request.cancel()
    await asyncio.gather(*many, return_exceptions=True)
