"""Documents that are there before a run: read and divided by rag's own code, into a store that the runs only read.

In: a data directory. Out: `rag/<tenant>.sqlite` in it.
"""

import hashlib
from pathlib import Path

from bulkhead_services.rag.chunk import chunks_of
from bulkhead_services.rag.index import DocumentStore
from bulkhead_services.rag.port import NewDocument
from bulkhead_services.rag.structure import read_structure
from tests.simulation.scenario import START_MS

HARBOUR = {"harbour.md": "# Harbour\n\nHarbour fees are 42 EUR a night.\nWater is included.\n"}
LIBRARY = {"port": HARBOUR, "keen": HARBOUR}
"""Documents by tenant and name. Tenants of which schedules were found before have none."""


def fill(data_dir: Path) -> None:
    """Once per data directory."""
    folder = data_dir / "rag"
    folder.mkdir(parents=True)
    for tenant, documents in LIBRARY.items():
        store = DocumentStore(folder / f"{tenant}.sqlite")
        for name, text in documents.items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            chunks, form = tuple(chunks_of(name, digest, read_structure(text, markdown=True))), "text/markdown"
            store.ingest_document(NewDocument(f"library-{name}", "default", name, digest, form, text, chunks, START_MS))
        store.close()
