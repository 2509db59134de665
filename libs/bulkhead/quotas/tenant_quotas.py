"""Quotas of the tenants, from the `quota` of each row in the tenants file, read again when the file changes.

In: the file. Out: quotas by tenant; defaults for a tenant that it does not name, and without a file. Also the tools and
ceilings to which the signer holds the tenant. A file that cannot be read changes nothing, and the log says so.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from bulkhead.gateway_api.operators import PolicyDocument
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Limit
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.types import Constraints, Contract, Name, Token

log = Log("quotas")
NO_QUOTA = Quota()
NO_PUSH = PushPolicy()


class _TaskLimit(Limit):
    deadline_ms: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS)] | None = None


class TenantDelegation(Contract):
    """Carrier of the steps of a role: a program outside (worker) of an identity, or a remote agent."""

    to: str = ""
    identity: str | None = None
    agent: str | None = None


class _TenantRow(Contract, extra="forbid"):
    """A tenant's row. What only the signer reads is named, so that a misspelt key is found."""

    quota: Quota = NO_QUOTA
    tools: tuple[Name, ...] = ()
    document_scopes: tuple[Token, ...] = ("default",)
    constraints: Constraints = ()
    task: _TaskLimit | None = None
    day: Limit | None = None
    delegated_roles: dict[Name, TenantDelegation] = Field(default={})
    push: PushPolicy = NO_PUSH
    gates: dict[Name, GatePolicy] = Field(default={})
    input: Any = None
    output: Any = None
    roles: Any = None
    default_writes: Any = None
    callers: Any = None


class _TenantsFile(Contract):
    tenants: dict[Token, _TenantRow]


class TenantQuotas:
    """Quotas by tenant. Call `reload_if_changed` now and then; a start with an unreadable file raises
    ValueError.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_stamp: tuple[int, int] | None = None
        self._rows: Mapping[str, _TenantRow] = {}
        if path is not None:
            self._read_stamp = _file_stamp(path)
            self._rows = _read_rows(path, self._read_stamp)

    def quota_of(self, tenant: str) -> Quota:
        """The quota of a tenant."""
        return self._rows[tenant].quota if tenant in self._rows else NO_QUOTA

    def policy_of(self, tenant: str) -> PolicyDocument | None:
        """The ceilings of a tenant, where the file has them."""
        row = self._rows.get(tenant)
        return PolicyDocument(task=row.task, day=row.day) if row and row.task and row.day else None

    def max_task_limits(self, tenant: str) -> TaskLimits:
        """The most that one task of a tenant may have. Where the file does not tell: the defaults of a request, and any
        deadline."""
        row, defaults = self._rows.get(tenant), TaskLimits(deadline_ms=bounds.MAX_TASK_DEADLINE_MS)
        row_limits = (
            row.task.model_dump(exclude_none=True, include=set(TaskLimits.model_fields)) if row and row.task else {}
        )
        return defaults.model_copy(update=row_limits)

    def tools_of(self, tenant: str) -> tuple[str, ...] | None:
        """The tools that its tasks may use, where the file names the tenant."""
        return self._rows[tenant].tools if tenant in self._rows else None

    def constraints_of(self, tenant: str) -> tuple[str, ...]:
        """Constraints on the values of arguments, which each of its grants has."""
        return self._rows[tenant].constraints if tenant in self._rows else ()

    def document_scopes_of(self, tenant: str) -> tuple[str, ...]:
        """Scopes of documents, which each of its grants has."""
        return self._rows[tenant].document_scopes if tenant in self._rows else ()

    def delegated_roles_of(self, tenant: str) -> tuple[str, ...]:
        """Its roles whose steps are carried out elsewhere."""
        return tuple(sorted(self._rows[tenant].delegated_roles)) if tenant in self._rows else ()

    def delegations_of(self, tenant: str) -> Mapping[str, TenantDelegation]:
        """Carriers of the steps of each of these roles."""
        return self._rows[tenant].delegated_roles if tenant in self._rows else {}

    def push_policy_of(self, tenant: str) -> PushPolicy:
        """Hosts to which its push notifications may go."""
        return self._rows[tenant].push if tenant in self._rows else NO_PUSH

    def gates_of(self, tenant: str) -> Mapping[str, GatePolicy]:
        """Gates before its labels of prompts."""
        return self._rows[tenant].gates if tenant in self._rows else {}

    def any_push(self) -> bool:
        """True if any tenant has push notifications."""
        return any(row.push.is_enabled for row in self._rows.values())

    def reload_if_changed(self) -> None:
        """Read the file again if it has changed."""
        stamp = _file_stamp(self._path) if self._path is not None else None
        if self._path is None or stamp == self._read_stamp:
            return
        self._read_stamp, before = stamp, self._rows
        try:
            rows = _read_rows(self._path, stamp)
        except ValueError as error:
            log.error("tenants_unreadable", reason=str(error))
            return
        self._rows = {name: _keep_gates(name, before.get(name), row) for name, row in rows.items()}
        # Nobody opens a gate by leaving out its tenant.
        self._rows |= {
            name: _keep_gates(name, row, _TenantRow()) for name, row in before.items() if row.gates and name not in rows
        }
        log.info("quotas_read", path=str(self._path), tenants=len(self._rows))


def _keep_gates(tenant: str, before: _TenantRow | None, row: _TenantRow) -> _TenantRow:
    """The row with the gates that it had and names no more: only `gates: {}` opens them."""
    says_none = "gates" in row.model_fields_set and not row.gates
    missing = set(before.gates) - set(row.gates) if before is not None and not says_none else set()
    if before is None or not missing:
        return row
    log.error("gates_kept", tenant=tenant, labels=sorted(missing), hint="`gates: {}` in its row opens them")
    return row.model_copy(update={"gates": {**before.gates, **row.gates}})


def _file_stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4)
def _read_rows(path: Path, _: tuple[int, int] | None) -> dict[str, _TenantRow]:
    """The rows of the file at this stamp. Raises ValueError."""
    try:
        document: Any = yaml.safe_load(path.read_text())
        return _TenantsFile.model_validate(document).tenants
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ValueError(
            f"cannot read quotas from {path}: {error}; correct the file: `quota` of a tenant may hold "
            f"{', '.join(Quota.model_fields)}"
        ) from error
