"""The stores of rag's documents: SQLite's own online copy, whole whatever is being written.

In: a folder of `<tenant>.sqlite` files. Out: a file per tenant; and back.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from bulkhead_contracts import subjects
from bulkhead_infra.backup.archive import BackupError

SUFFIX = ".sqlite"


def tenants_with_documents(folder: Path) -> list[str]:
    """Tenants that have documents."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}") if path.is_file())


def copy_store(folder: Path, tenant: str, to: Path) -> None:
    """Copy a store into a new private file, without keeping rag from writing. Raises BackupError."""
    source = folder / f"{tenant}{SUFFIX}"
    try:
        os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(source)) as theirs, contextlib.closing(sqlite3.connect(to)) as ours:
            theirs.backup(ours)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"the documents of {tenant} ({source}) cannot be copied: {error}") from error


def restore_store(folder: Path, tenant: str, pieces: Iterable[bytes]) -> None:
    """Write a store where rag looks for it, and see that it is one. Raises BackupError."""
    target = folder / f"{tenant_name(tenant)}{SUFFIX}"
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.closing(sqlite3.connect(target)) as store:
            [answer] = store.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"the documents of {tenant} cannot be restored to {target}: {error}") from error
    if answer != "ok":
        raise BackupError(f"the documents of {tenant} in the backup are damaged ({answer}); restore another one")


def tenant_name(text: str) -> str:
    """A tenant's name, which becomes a file's. Raises BackupError."""
    try:
        return subjects.check_token(text)
    except subjects.SubjectError as error:
        raise BackupError(f"the backup names a tenant {text[:80]!r}, which is no name; nothing was restored") from error


@contextlib.contextmanager
def open_store_copy(folder: Path, tenant: str, near: Path) -> Iterator[Iterator[bytes]]:
    """The bytes of a copy; the copy is gone afterwards. near: the file beside which it lies meanwhile."""
    path = near.with_name(f".{near.name}.{os.getpid()}.{tenant}.copy")
    try:
        copy_store(folder, tenant, path)
        with path.open("rb") as file:
            yield iter(lambda: file.read(1024 * 1024), b"")
    finally:
        path.unlink(missing_ok=True)
