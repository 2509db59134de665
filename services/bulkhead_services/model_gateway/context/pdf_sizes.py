"""Sizes of the PDFs that outside agents show a model: each is read in a process of its own, once.

Enters: messages with PDFs in them. Leaves: pages and text of each, or why it cannot be counted.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.documents.parser_process import ParserLimits, run_parser
from bulkhead.model_apis.media import PdfSize, PdfSizes, media_in, sha256_of
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_contracts import bounds

PARSER = ParserLimits(memory_mib=256, timeout_s=15.0)
PARSERS = 2
"""One of them is out of reach for each single tenant."""
MAX_CHARS = 1_000_000
MAX_KEPT = 16
MAX_PDFS = 16
REQUEST_S = 20.0
"""So long all PDFs of a request are read, and waited for; then they are left out."""


class PdfSizeReader:
    """The sizes that were read by this replica."""

    def __init__(self, request_s: float = REQUEST_S) -> None:
        self._request_s = request_s
        self._kept = BoundedDict[str, PdfSize](MAX_KEPT)
        self._places = FairSemaphore(PARSERS, kept=1)

    async def read_sizes(self, tenant: str, person: str, payload: Mapping[str, Any]) -> PdfSizes:
        """The size of each PDF in a payload; people of a tenant take turns."""
        contents = [pdf for medium in media_in(payload) if (pdf := medium.pdf()) is not None]
        by_digest = {sha256_of(pdf): pdf for pdf in contents}
        digests, loop = list(by_digest), asyncio.get_running_loop()
        until_s = loop.time() + self._request_s
        over = PdfSize(problem=f"a request has at most {MAX_PDFS} PDFs")
        sizes = dict.fromkeys(digests[MAX_PDFS:], over)
        # One after the other: a request of many holds up its person's next by one.
        for digest in digests[:MAX_PDFS]:
            sizes[digest] = await self._size_of(tenant, person, digest, by_digest[digest], until_s - loop.time())
        return sizes

    async def _size_of(self, tenant: str, person: str, digest: str, pdf: bytes, left_s: float) -> PdfSize:
        if (size := self._kept.get_refreshed(digest)) is not None:
            return size
        late = PdfSize(problem=f"it was not read: the PDFs of a request are read for {self._request_s:g} s")
        if left_s <= 0:
            return late
        try:
            async with asyncio.timeout(left_s), self._places.hold_slot(tenant, person):
                bounds_of_text = (bounds.MAX_ASKED_PDF_PAGES, MAX_CHARS)
                reply = await run_parser("bulkhead.documents.pdf_size", "pdf", pdf, PARSER, *bounds_of_text)
        except TimeoutError:
            return late
        failed = reply.get("code")
        size = PdfSize(problem=str(reply["message"])) if failed else PdfSize(reply["pages"], reply["text"])
        self._kept[digest] = size
        return size
