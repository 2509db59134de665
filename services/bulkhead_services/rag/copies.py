"""Copies of the document stores: `python3 -P -m bulkhead_services.rag.copies save|load`, where rag runs.

save  a tar of all stores goes to standard output; each is an online copy, whole whatever is being written
load  such a tar comes from standard input; its stores lie where rag looks for them. No store of theirs may be there
In: rag's settings. Exit codes: 0; 1 with what is wrong and what to do; 2 for wrong arguments.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bulkhead_contracts import subjects
from bulkhead_services.rag.settings import Settings

SUFFIX, UNFINISHED = ".sqlite", ".copy"
USAGE_ERROR = 2


class CopyError(Exception):
    """A store could not be copied; the message says which and what to do."""


def save_stores(folder: Path, to: IO[bytes]) -> int:
    """Write a tar; the number of stores in it. Raises CopyError, OSError, sqlite3.Error."""
    stores = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    with tarfile.open(fileobj=to, mode="w|") as tar:
        for store in stores:
            # On the disk of the stores: no other folder of the container has room.
            with _unfinished_copy(folder, store.name) as copy:
                with (
                    contextlib.closing(sqlite3.connect(store)) as theirs,
                    contextlib.closing(_create_store(copy)) as ours,
                ):
                    theirs.backup(ours)
                tar.add(copy, arcname=store.name)
    return len(stores)


def load_stores(folder: Path, source: IO[bytes]) -> int:
    """Stores of a tar; their number. Raises CopyError, OSError, sqlite3.Error."""
    count = 0
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                _put_store(folder, member, tar.extractfile(member) if member.isfile() else None)
                count += 1
    except tarfile.TarError as error:
        raise CopyError(
            f"standard input is no whole tar of `save` ({error}); {count} stores were put in place"
        ) from error
    return count


def _put_store(folder: Path, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
    tenant = member.name.removesuffix(SUFFIX)
    try:
        named = member.name == f"{subjects.check_token(tenant)}{SUFFIX}"
    except subjects.SubjectError:
        named = False
    if content is None or not named:
        raise CopyError(f"the tar holds {member.name[:80]!r}, which is no store; take one that `save` wrote")
    with _unfinished_copy(folder, member.name) as copy:
        with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.closing(sqlite3.connect(copy)) as store:
            [answer] = store.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise CopyError(f"the store of {tenant} is damaged in the tar ({answer}); take another one")
        try:
            os.link(copy, folder / member.name)
        except FileExistsError:
            way = f"its file {folder / member.name} must be moved away first, while rag is stopped"
            raise CopyError(f"{tenant} has documents here already; {way}") from None


@contextlib.contextmanager
def _unfinished_copy(folder: Path, name: str) -> Iterator[Path]:
    """A file beside the stores that is gone afterwards, with what SQLite makes beside it."""
    path = folder / f".{name}.{os.getpid()}{UNFINISHED}"
    try:
        yield path
    finally:
        for each in folder.glob(f"{path.name}*"):
            each.unlink(missing_ok=True)


def _create_store(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return sqlite3.connect(path)


def main(arguments: list[str]) -> int:
    """The command line."""
    if arguments not in (["save"], ["load"]):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return USAGE_ERROR
    [command] = arguments
    folder = Settings().store_dir
    try:
        count = save_stores(folder, sys.stdout.buffer) if command == "save" else load_stores(folder, sys.stdin.buffer)
    except (CopyError, OSError, sqlite3.Error) as error:
        print(f"{command}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{command}: documents of {count} tenants", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
