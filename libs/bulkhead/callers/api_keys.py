"""API keys: a file of their digests, each with its owner.

In: a key. Out: a RequesterClaim, or nothing. A key carries 256 random bits, so a plain SHA-256 digest is enough
(nothing to guess).
"""

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from bulkhead.telemetry.log import Log
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract, Name, Sha256, Token, UnixMs

log = Log("callers.api_keys")
KEY_PREFIX = "bk_"
MAX_API_KEYS = 10_000
PEOPLE_ONLY = frozenset({"approver", "operator", "prompt_editor"})
"""Roles that no agent has."""


class ApiKey(Contract):
    """One row of the key file: the digest of a key, and its owner. role `worker`: a program that takes delegated steps,
    and may do nothing else; its person is the identity that a tenant's `delegated_roles` name. agent: what is
    written under it are a model's words, and it approves nothing. made_unix_ms: 0 in files of before."""

    sha256: Sha256
    tenant: Token
    person: Name
    role: Literal["submitter", "approver", "operator", "auditor", "prompt_editor", "evaluator", "worker"]
    agent: bool = False
    made_unix_ms: UnixMs = 0

    @model_validator(mode="after")
    def _check_agent_role(self) -> Self:
        if self.agent and self.role in PEOPLE_ONLY:
            raise ValueError(f"an agent's key is {self.role}: give it submitter or auditor, for people alone approve")
        return self


class ApiKeyFile(Contract):
    """The key file."""

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MAX_API_KEYS)] = ()


class ApiKeys:
    """The key file, read again when it changes; a file that cannot be read keeps the last good one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._rows: tuple[ApiKey, ...] = ()

    def load(self) -> None:
        """Read the file if it changed. Raises ValueError when there is none to fall back on."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) == self._seen:
                return
            self._rows = ApiKeyFile.model_validate_json(self._path.read_bytes()).keys
            self._seen = (stat.st_mtime_ns, stat.st_size)
        except (OSError, ValidationError) as error:
            if self._seen is None:
                raise ValueError(
                    f"cannot read API keys from {self._path}: {error}; "
                    'it must hold {"keys": [{"sha256", "tenant", "person", "role"}]}'
                ) from error
            log.error("api_keys_unreadable", path=str(self._path), reason=str(error))

    def rows_of(self, tenant: str) -> tuple[ApiKey, ...]:
        """The rows of a tenant, as last read."""
        return tuple(row for row in self._rows if row.tenant == tenant)

    def find_owner(self, key: str) -> RequesterClaim | None:
        """The person who owns a key."""
        return self.owner_of_digest(hashlib.sha256(key.encode()).hexdigest())

    def owner_of_digest(self, digest: str) -> RequesterClaim | None:
        """The person who owns the key with this digest."""
        row = self._find_row(digest)
        if row is None or row.role == "worker":
            return None
        return RequesterClaim(tenant=row.tenant, person=row.person, role=row.role, via="api_key", agent=row.agent)

    def worker_of_key(self, key: str) -> tuple[str, str] | None:
        """Tenant and name of the program that owns a key."""
        row = self._find_row(hashlib.sha256(key.encode()).hexdigest())
        return (row.tenant, row.person) if row is not None and row.role == "worker" else None

    def _find_row(self, digest: str) -> ApiKey | None:
        """Compares with every row, so that the time reveals nothing."""
        owners = [row for row in self._rows if hmac.compare_digest(row.sha256, digest)]
        return owners[-1] if owners else None
