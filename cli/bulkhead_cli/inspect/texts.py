"""Contents of a task, read under the operator's key.

In: references. Out: texts by digest, of those that are still there.
"""

from collections.abc import Iterable

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import Bus
from bulkhead_contracts.result import ContentRef


async def read_texts(bus: Bus, tenant: str, refs: Iterable[ContentRef]) -> dict[str, str]:
    """Raises BusError."""
    blobs, texts = Blobs(bus, "operator"), dict[str, str]()
    for ref in refs:
        try:
            texts[ref.sha256] = await blobs.get_text(tenant, ref)
        except (BlobMissing, BlobCorrupt):
            continue
    return texts
