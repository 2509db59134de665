"""What each tenant may, as data: the `quota` of its row in the tenants file, re-read when the file changes.

In: the file. Out: quotas by tenant; the default for whom it does not name, and all defaults without a file. Beside them
the ceilings that the signer holds the tenant to, to be shown. A file that
cannot be read changes nothing: what held goes on to hold, and the log says so.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import Limit
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.types import Contract, Token

log = Log("gateway.quotas")
NONE = Quota()


class PolicyDocument(Contract):
    """What the tenant's policy allows: one task, and all of its tasks of a day (UTC). The signer holds every task to
    it; a limit above it changes nothing."""

    task: Limit
    day: Limit


class _Row(Contract):
    """What is read of a tenant's row; the signer reads the rest."""

    quota: Quota = NONE
    task: Limit | None = None
    day: Limit | None = None


class _File(Contract):
    tenants: dict[Token, _Row] = Field(default={})


class TenantQuotas:
    """Quotas by tenant. `look` again now and then; a start with a file that cannot be read raises ValueError."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._rows: Mapping[str, _Row] = {}
        if path is not None:
            self._seen = _stamp(path)
            self._rows = _read(path, self._seen)

    def of(self, tenant: str) -> Quota:
        """What a tenant may."""
        row = self._rows.get(tenant)
        return row.quota if row is not None else NONE

    def policy(self, tenant: str) -> PolicyDocument | None:
        """Its ceilings, where the file tells them."""
        row = self._rows.get(tenant)
        return PolicyDocument(task=row.task, day=row.day) if row and row.task and row.day else None

    def look(self) -> None:
        """Take the file in if it is another one than it was."""
        stamp = _stamp(self._path) if self._path is not None else None
        if self._path is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._rows = _read(self._path, stamp)
        except ValueError as error:
            log.warning("quotas_unreadable", reason=str(error))
            return
        log.info("quotas_read", path=str(self._path), tenants=len(self._rows))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _read(path: Path, _: tuple[int, int] | None) -> dict[str, _Row]:
    """As it is at this stamp. Raises ValueError."""
    try:
        found: Any = yaml.safe_load(path.read_text())
        return _File.model_validate(found).tenants
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ValueError(
            f"cannot read quotas from {path}: {error}; correct the file: `quota` of a tenant may hold "
            f"{', '.join(Quota.model_fields)}"
        ) from error
