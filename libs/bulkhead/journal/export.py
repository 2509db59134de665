"""Export: everything of one task, from the journal and the blobs, as a portable history."""

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import Bus
from bulkhead.journal.history import read_one_task
from bulkhead.journal.order import in_publication_order
from bulkhead.journal.reader import place_of
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.decider.history import TaskHistory, collect_history
from bulkhead_contracts.result import ContentRef

IN_THE_WORKS_MS = 10_000
"""Age from which on the last message of a task has been answered, or nobody answers it."""


async def export_task(bus: Bus, task: str, tenant: str = "") -> TaskHistory:
    """Everything of one task. Raises UnknownTask, HistoryError, BusError."""
    # Of a restored mesh the journal's own times tell since when it works on what was in the works.
    journal = await read_one_task(bus, task, tenant, as_it_lies=True)
    settled = unix_ms() - journal[-1].time_unix_ms > IN_THE_WORKS_MS
    tenant = journal[0].tenant
    journal = await in_publication_order(bus, place_of(task, tenant), journal)
    blobs = Blobs(bus, "operator")

    async def read_content(ref: ContentRef) -> bytes | None:
        try:
            return await blobs.get(tenant, ref)
        except (BlobMissing, BlobCorrupt):
            return None

    return await collect_history(journal, read_content, settled=settled)
