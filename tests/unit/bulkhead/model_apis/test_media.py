"""Tokens of media: what a page of a PDF may cost by each vendor's rule."""

import base64

import pytest

from bulkhead.model_apis.media import MOST_PAGE_TEXT_TOKENS, Medium, PdfSize, media_tokens_to_reserve, sha256_of

PDF = b"%PDF-1.7"
INVOICE = Medium("document", base64.b64encode(PDF).decode(), "application/pdf")


@pytest.mark.parametrize(
    ("model", "documented"),
    [
        ("gpt-4o", 85 + 8 * 170),
        ("gpt-4o-mini", 2_833 + 8 * 5_667),
        ("gpt-4.1-mini", 3_779),
        ("claude-sonnet-4-5", 4_784),
        ("gemini-2.5-flash", 258),
        ("gemini-3-pro", 2_240),
        ("a-model-of-tomorrow", 2_833 + 8 * 5_667),
    ],
)
def test_a_page_of_a_pdf_reserves_the_most_that_its_vendor_counts_and_not_many_times_that(model, documented) -> None:
    sizes = {sha256_of(PDF): PdfSize(pages=3)}
    page_tokens = media_tokens_to_reserve([INVOICE], sizes, len, model) / 3 - MOST_PAGE_TEXT_TOKENS
    assert documented <= page_tokens <= max(documented * 1.2, 3_000)
