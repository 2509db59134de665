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


class PdfSizeReader:
    """The sizes that were read by this replica."""

    def __init__(self) -> None:
        self._kept = BoundedDict[str, PdfSize](MAX_KEPT)
        self._places = FairSemaphore(PARSERS, kept=1)

    async def read_sizes(self, tenant: str, payload: Mapping[str, Any]) -> PdfSizes:
        """The size of each PDF in a payload."""
        contents = [pdf for medium in media_in(payload) if (pdf := medium.pdf()) is not None]
        by_digest = {sha256_of(pdf): pdf for pdf in contents}
        digests = list(by_digest)
        sizes = await asyncio.gather(*(self._size_of(tenant, key, by_digest[key]) for key in digests[:MAX_PDFS]))
        over = PdfSize(problem=f"a request has at most {MAX_PDFS} PDFs")
        return dict.fromkeys(digests[MAX_PDFS:], over) | dict(zip(digests, sizes, strict=False))

    async def _size_of(self, tenant: str, digest: str, pdf: bytes) -> PdfSize:
        if (size := self._kept.get_refreshed(digest)) is not None:
            return size
        most = (bounds.MAX_ASKED_PDF_PAGES, MAX_CHARS)
        async with self._places.hold_slot(tenant):
            reply = await run_parser("bulkhead.documents.pdf", "pdf", pdf, PARSER, *most)
        pages, replacements = reply.get("pages") or [], reply.get("replacements") or []
        # A provider may read either text: what it counts is at most both.
        text = "\n".join((*pages, *replacements))
        size = PdfSize(problem=str(reply["message"])) if reply.get("code") else PdfSize(len(pages), text)
        self._kept[digest] = size
        return size
