"""A broker's store on disk. In: the folder that holds it. Out: without what a power cut spoiled and is made again."""

import shutil
from pathlib import Path

from bulkhead_contracts import subjects
from bulkhead_infra.processes.torn_file import is_torn


def drop_torn_journal(folder: Path) -> bool:
    """Remove the journal when a power cut has left no description of it, with which the broker would not be healthy.

    It alone is written without fsync (streams.py); it is made of the inboxes, so that it is lost for a moment only: the
    provisioner makes it again and the broker fills it.
    """
    journal = folder / "store" / "jetstream" / "MESH" / "streams" / subjects.JOURNAL_STREAM
    was_torn = is_torn(journal / "meta.inf") or is_torn(journal / "meta.sum")
    if was_torn:
        shutil.rmtree(journal)
    return was_torn
