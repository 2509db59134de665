"""Texts with who is behind them, as signed labels testify.

In: labels, and texts or blobs. Out: a SourceText for each that counts. A text counts as the requester's, a document's
or a tool's where its observer signed a label that says so for this task; any other counts as a model's.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.policy.attribution import SourceText
from bulkhead.telemetry.log import Log
from bulkhead_contracts.provenance import Source
from bulkhead_contracts.result import ContentRef, Label

log = Log("labelled_texts")
OBSERVERS: Mapping[tuple[str, str], Source] = {
    ("objective", "gateway"): "user",
    ("passage", "rag"): "retrieved",
    ("tool_result", "tool_executor"): "tool",
}
"""Who may testify to what."""


def source_of_label(label: Label) -> Source | None:
    """Source of a text with this label; None where the label does not say."""
    source = OBSERVERS.get((label.kind, label.observed_by))
    return None if source == "user" and label.trust != "user" else source


def testified_texts(text: str, labels: Iterable[Label]) -> Iterator[SourceText]:
    """The text once for each of its labels, which are verified."""
    for label in labels:
        source = source_of_label(label)
        assert source is not None
        name = label.source or label.kind
        yield SourceText(text, source, label.sha256, name, label.step_id, label.carries, label.partial)


async def read_labelled_texts(blobs: Blobs, tenant: str, labels: Iterable[Label]) -> tuple[list[SourceText], bool]:
    """The texts that doers stored under these verified labels, and whether these are all."""

    async def read_text(label: Label) -> list[SourceText]:
        ref = ContentRef(author=label.observed_by, sha256=label.sha256, size_bytes=0)
        try:
            return list(testified_texts(await blobs.get_text(tenant, ref), [label]))
        except (BlobMissing, BlobCorrupt) as error:
            log.warning("source_unreadable", tenant=tenant, reason=str(error))
            return []

    texts_by_label = await asyncio.gather(*map(read_text, labels))
    return [row for rows in texts_by_label for row in rows], all(texts_by_label)
