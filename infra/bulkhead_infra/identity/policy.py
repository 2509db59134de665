"""The policy as data: read from policy.yaml and tenants.yaml, held against the catalog.

In: the YAML files. Out: an `IdentityPolicy` and `Tenants` that fit the catalog, or an IdentityPolicyError
that says which line of thought is wrong. Nothing here knows NATS.
"""

import operator
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.delegation import DelegatedRoles
from bulkhead_contracts.output import InputPolicy, OutputPolicy
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.types import Constraints, Name, Token, TokenCount, UsdMicros

HERE = Path(__file__).resolve().parent
POLICY_FILE = HERE / "policy.yaml"
TENANTS_FILE = HERE / "tenants.yaml"
OPERATOR = "operator"
PROVISIONER = "provisioner"
BACKUP = "backup"
IDENTITY = "identity"
MAX_PUBLISHERS = 1_000
MAX_WORKERS = 1_000

PublisherName = Annotated[str, StringConstraints(pattern=r"^pub_[a-z0-9_]{1,30}$")]
WorkerName = Annotated[str, StringConstraints(pattern=r"^wrk_[a-z0-9_]{1,30}$")]
SubscriberName = Annotated[str, StringConstraints(pattern=r"^sub_[a-z0-9_]{1,30}$")]
_Model = TypeVar("_Model", bound=BaseModel)


class IdentityPolicyError(ValueError):
    """The policy does not hold together; the message says where and what to do."""


class Use(StrEnum):
    """A right of an identity beside the catalog's edges; explained in policy.yaml."""

    INBOX = "inbox"
    INBOX_HISTORY = "inbox_history"
    TIMERS = "timers"
    RECORDS = "records"
    RESPONSE_CACHE = "response_cache"
    BLOBS_WRITE = "blobs_write"
    BLOBS_READ = "blobs_read"
    EVENTS_WRITE = "events_write"
    LIVE_WRITE = "live_write"
    CONTROL_READ = "control_read"
    CONTROL_WRITE = "control_write"
    PROMPTS_READ = "prompts_read"
    RELEASES_HEAR = "releases_hear"
    PROMPTS_WRITE = "prompts_write"
    DEAD_LETTERS_WRITE = "dead_letters_write"
    DEAD_LETTERS_READ = "dead_letters_read"
    JOURNAL_READ = "journal_read"
    INBOXES_READ = "inboxes_read"
    COUNTS = "counts"
    STREAM_INFO = "stream_info"
    REDRIVE = "redrive"
    LOGINS = "logins"


class ReachablePlace(StrEnum):
    """A place that a service may reach beside the broker; explained in policy.yaml."""

    CLIENTS = "clients"
    PROVIDERS = "providers"
    TOOLS = "tools"
    REDIS = "redis"
    DOCUMENTS = "documents"
    KEY_SET = "key_set"
    GATEWAY = "gateway"


OPERATOR_ONLY = frozenset({Use.INBOXES_READ, Use.REDRIVE, Use.STREAM_INFO})
"""No process that runs all day may read or say everything."""


class _PolicyModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServicePolicy(_PolicyModel):
    uses: frozenset[Use]
    reads: tuple[Token, ...] = ()
    hears: tuple[Token, ...] = ()
    reaches: frozenset[ReachablePlace] = frozenset()


class OperatorPolicy(_PolicyModel):
    """The rights of a person's command line."""

    uses: frozenset[Use]


class OutsidePublisherPolicy(_PolicyModel):
    """For whom an outside publisher speaks. agent: a model writes what it submits."""

    tenant: Token
    person: Name
    role: Literal["submitter", "operator"] = "submitter"
    agent: Annotated[bool, Field(exclude_if=operator.not_)] = False


class OutsideSubscriberPolicy(_PolicyModel):
    """Tenant whose events an outside subscriber is told, and which events (`task.ended`)."""

    tenant: Token
    events: Annotated[tuple[Literal[tuple(catalog.EVENTS)], ...], Field(min_length=1)]  # type: ignore[valid-type]


class OutsideWorkerPolicy(_PolicyModel):
    """Tenant whose delegated steps a program outside takes; of which roles stands in the tenants file."""

    tenant: Token


class OutsidePrograms(_PolicyModel):
    """Programs outside, by the names of their identities."""

    publishers: Annotated[dict[PublisherName, OutsidePublisherPolicy], Field(max_length=MAX_PUBLISHERS)] = {}
    subscribers: Annotated[dict[SubscriberName, OutsideSubscriberPolicy], Field(max_length=bounds.MAX_SUBSCRIBERS)] = {}
    workers: Annotated[dict[WorkerName, OutsideWorkerPolicy], Field(max_length=MAX_WORKERS)] = {}


class IdentityPolicy(OutsidePrograms):
    services: dict[Token, ServicePolicy]
    operator: OperatorPolicy

    @property
    def identities(self) -> tuple[str, ...]:
        outside = (*self.publishers, *self.subscribers, *self.workers)
        return (*self.services, PROVISIONER, BACKUP, OPERATOR, *outside)

    def outside_programs_json(self) -> str:
        """The rows of outside programs as JSON: the file that the gateway reads."""
        return self.model_dump_json(include={"publishers", "subscribers"}, indent=1)

    @property
    def with_token(self) -> tuple[str, ...]:
        """Those that log in with tokens, by the identity service, and have no nkey: where there is that service."""
        return tuple(name for name in self.services if name != IDENTITY) if IDENTITY in self.services else ()

    @property
    def with_nkey(self) -> tuple[str, ...]:
        return tuple(name for name in self.identities if name not in self.with_token)

    @model_validator(mode="after")
    def _tells_subscribers(self) -> Self:
        if self.subscribers and not any(Use.EVENTS_WRITE in row.uses for row in self.services.values()):
            raise ValueError("subscribers: nobody tells them anything: add events_write to the uses of gateway")
        return self

    @model_validator(mode="after")
    def _fits_the_catalog(self) -> Self:
        if odd := sorted(set(self.services) ^ set(catalog.EVERY_SERVICE)):
            raise ValueError(f"services and catalog.EVERY_SERVICE differ in {', '.join(odd)}; add or remove the row")
        for name, service in self.services.items():
            _check_service(name, service, self)
        if self.operator.uses & {Use.INBOX, Use.TIMERS, Use.RECORDS}:
            raise ValueError("operator: inbox, timers and records belong to services; remove them")
        return self


def _check_service(name: str, service: ServicePolicy, policy: IdentityPolicy) -> None:
    uses = service.uses
    if forbidden := uses & OPERATOR_ONLY:
        raise ValueError(
            f"bulkhead_services.{name}: {', '.join(sorted(forbidden))} is for the operator alone; remove it"
        )
    if (Use.INBOX in uses) != (name in catalog.INBOXES):
        raise ValueError(f"bulkhead_services.{name}: it uses inbox if, and only if, the catalog sends it something")
    if (Use.TIMERS in uses) != (name in catalog.DECIDERS):
        raise ValueError(f"bulkhead_services.{name}: deciders use timers, nobody else does")
    if (Use.LOGINS in uses) != (name == IDENTITY):
        raise ValueError(f"bulkhead_services.{name}: logins is for {IDENTITY}, and for no other")
    if (Use.RECORDS in uses) != (name in catalog.DOERS):
        raise ValueError(f"bulkhead_services.{name}: doers use records, nobody else does")
    if unknown := set(service.reads) - set(catalog.INBOXES):
        raise ValueError(f"bulkhead_services.{name}.reads: no such inbox: {', '.join(sorted(unknown))}")
    for live_source in service.hears:
        if live_source not in policy.services or Use.LIVE_WRITE not in policy.services[live_source].uses:
            raise ValueError(
                f"bulkhead_services.{name}.hears: {live_source} says nothing live; give it live_write or remove it"
            )


class TaskCeilings(_PolicyModel):
    cost_usd_micros: UsdMicros
    tokens: TokenCount
    deadline_ms: Annotated[int, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS)]
    approval_wait_ms: Annotated[int, Field(ge=0, le=bounds.MAX_TASK_DEADLINE_MS)] = bounds.DEFAULT_APPROVAL_WAIT_MS


class DayCeilings(_PolicyModel):
    """Limits of all of a tenant's tasks of one day."""

    cost_usd_micros: UsdMicros
    tokens: TokenCount


class Tenant(_PolicyModel):
    """The ceilings of one tenant."""

    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)]
    document_scopes: Annotated[tuple[Token, ...], Field(max_length=16)]
    task: TaskCeilings
    day: DayCeilings
    quota: Quota = Quota()
    input: InputPolicy = InputPolicy()
    output: OutputPolicy = OutputPolicy()
    default_writes: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    constraints: Constraints = ()
    callers: tuple[Literal["api_key", "jwt", "publisher"], ...] = ("api_key", "jwt", "publisher")
    delegated_roles: DelegatedRoles = {}
    push: PushPolicy = PushPolicy()
    gates: Annotated[dict[Name, GatePolicy], Field(max_length=bounds.MAX_RELEASE_LABELS)] = {}

    @model_validator(mode="after")
    def _task_within_day(self) -> Self:
        if self.task.cost_usd_micros > self.day.cost_usd_micros or self.task.tokens > self.day.tokens:
            raise ValueError("one task may take more than the whole day; lower `task` or raise `day`")
        return self


class Tenants(_PolicyModel):
    tenants: Annotated[dict[Token, Tenant], Field(min_length=1)]

    @model_validator(mode="after")
    def _not_the_meshs_own(self) -> Self:
        if reserved := sorted(set(self.tenants) & subjects.RESERVED_TENANTS):
            raise ValueError(f"{reserved[0]}: the mesh keeps facts of its own under this name; choose another")
        return self


def load_policy(path: Path = POLICY_FILE, *, kubernetes: bool = False) -> IdentityPolicy:
    """Read and check the policy. kubernetes: with the services that no other mesh has. Raises IdentityPolicyError."""
    policy = _validate_document(_read_document(path), path, IdentityPolicy)
    services = {name: row for name, row in policy.services.items() if kubernetes or name in catalog.SERVICES}
    return policy.model_copy(update={"services": services})


def load_programs(path: Path, text: str = "") -> OutsidePrograms:
    """Programs outside of a file of one's own, or of its text. Raises IdentityPolicyError."""
    document = _parse_yaml(text, path) if text else _read_document(path)
    return _validate_document({} if document is None else document, path, OutsidePrograms)


def add_programs(rules: IdentityPolicy, programs: OutsidePrograms, path: Path) -> IdentityPolicy:
    """The rules with these programs beside the package's. path: of their file. Raises IdentityPolicyError."""
    merged: dict[str, dict[str, Any]] = {}
    for section in OutsidePrograms.model_fields:
        packaged, rows = getattr(rules, section), getattr(programs, section)
        if repeated_names := sorted(set(rows) & set(packaged)):
            problem = f"{section}.{repeated_names[0]}: comes with the mesh; choose another name"
            raise IdentityPolicyError(f"{path}: {problem}")
        merged[section] = {**packaged, **rows}
    _validate_document({section: dict(rows) for section, rows in merged.items()}, path, OutsidePrograms)
    return rules.model_copy(update=merged)


def load_tenants(path: Path = TENANTS_FILE) -> Tenants:
    """Read and check the tenants. Raises IdentityPolicyError."""
    return build_tenants(_read_document(path), path)


def read_tenant_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a tenants file as they stand there, checked. Raises IdentityPolicyError."""
    document = _read_document(path)
    build_tenants(document, path)
    return dict(document["tenants"])


def build_tenants(document: object, path: Path) -> Tenants:
    """The tenants of a document that was read from a path. Raises IdentityPolicyError."""
    from bulkhead.policy.constraints import (
        unreadable_reason,
    )  # Not every process that reads this module has its parser.

    tenants = _validate_document(document, path, Tenants)
    for name, tenant in tenants.tenants.items():
        if problem := unreadable_reason(tenant.constraints, tenant.tools):
            raise IdentityPolicyError(f"{path}: tenants.{name}.{problem}")
    return tenants


def check_publishers(rules: OutsidePrograms, tenants: Tenants) -> None:
    """Every publisher speaks for a tenant that exists, every subscriber hears of one, and every worker works for
    one. Raises IdentityPolicyError.
    """
    if problems := list(list_unknown_tenants(rules, tenants)):
        raise IdentityPolicyError("\n  ".join(problems))


def list_unknown_tenants(rules: OutsidePrograms, tenants: Tenants) -> Iterator[str]:
    """A line for each program outside whose tenant does not exist."""
    outside = (("publisher", rules.publishers), ("subscriber", rules.subscribers), ("worker", rules.workers))
    for kind, rows in outside:
        for name, row in rows.items():
            if row.tenant not in tenants.tenants:
                way = f"add the tenant there or remove the {kind}"
                yield f"{kind}s.{name}: tenant {row.tenant!r} is not in tenants.yaml; {way}"


def _read_document(path: Path) -> Any:
    try:
        return _parse_yaml(path.read_text(), path)
    except OSError as error:
        way = "restore the file from the repository" if path in (POLICY_FILE, TENANTS_FILE) else "check its path"
        raise IdentityPolicyError(f"cannot read {path}: {error.strerror}; {way}") from error


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise IdentityPolicyError(f"{path} is not YAML: {error}; correct it") from error


def _validate_document(document: object, path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise IdentityPolicyError(describe_misfits(path, error, model)) from error


def describe_misfits(path: Path, error: ValidationError, model: type[BaseModel]) -> str:
    """A line for each misfit of a file."""
    lines = []
    for misfit in find_misfits(error, model):
        known_fields = f"; known fields are {', '.join(misfit.known)}" if misfit.known else ""
        lines.append(f"{path}: {misfit if misfit.where else f'the file {misfit}'}{known_fields}")
    return "\n  ".join(lines)
