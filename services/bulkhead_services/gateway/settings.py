"""Settings of the gateway, read from the environment (prefix BULKHEAD_)."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bulkhead.callers.authentication import CallerSettings
from bulkhead.runtime.settings import WebhookEvents
from bulkhead_contracts import bounds
from bulkhead_contracts.types import Contract, Name, Token


class PublisherSettings(Contract):
    """The person and role behind an outside publisher's key (`pub_<name>` on the bus). agent: a model writes."""

    tenant: Token
    person: Name
    role: Literal["submitter", "operator"] = "submitter"
    agent: bool = False


class SubscriberSettings(Contract):
    """The tenant whose events an outside subscriber (`sub_<name>`) is told, and which (`task.ended`)."""

    tenant: Token
    events: tuple[str, ...]


class Settings(CallerSettings):
    """http_port 0 takes a free port, written to http_file as {"host", "port"}.

    api_keys_file: {"keys": [{"sha256", "tenant", "person", "role"}]}; re-read when it changes.
    publishers: JSON {"pub_<name>": {"tenant", "person", "role"}}; publishers_file holds the same (YAML or JSON, at
    the top or under `publishers`, as infra/bulkhead_infra/identity/policy.yaml does), and wins; with `subscribers`.
    subscribers: JSON {"sub_<name>": {"tenant", "events"}}: of other tenants and events nothing is told outside.
    webhook_events: by tenant, events that tool_executor posts to its webhook, as '{"acme": ["task.ended"]}'; it needs
    the same.
    session_s: for which a person stays signed in at the console. runbooks: address of their page, to which the console
    links (https://wiki.example/bulkhead); without one to its own page, /runbooks.
    head_timeout_s: until a request's headers are complete. body_timeout_s: the same for its body, plus the time of its
    bytes at body_min_bytes_per_s. write_timeout_s: for which a client may read nothing of its answer. max_streams* and
    max_body_bytes_held* (of bodies that are being read or handled): per replica.
    tenants_file: the quotas of the tenants (`quota` in their rows), read again when it changes; without it all have
    the defaults of contracts/bulkhead_contracts/quota.py. running_tasks: at once, in the whole mesh. edge_replicas: of
    the gateway; rates are divided by it. jwt_*: which tokens of callers are accepted; the signer needs the same.
    """

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    http_file: Path | None = None
    publishers: dict[str, PublisherSettings] = {}
    subscribers: dict[str, SubscriberSettings] = {}
    publishers_file: Path | None = None
    webhook_events: WebhookEvents = {}
    session_s: int = Field(default=8 * 3600, ge=60, le=7 * 24 * 3600)
    runbooks: str = Field(default="", pattern=r"^(https?://[^\s\"'<>#{}]+)?$", max_length=500)
    heartbeat_s: float = Field(default=15.0, gt=0)
    reread_s: float = Field(default=2.0, gt=0)
    ingest_wait_s: float = Field(default=10.0, ge=0)
    recent_tasks: int = Field(default=512, gt=0)
    live_tasks: int = Field(default=256, gt=0)
    listed_tasks: int = Field(default=10_000, gt=0)
    max_streams: int = Field(default=1_000, gt=0)
    max_streams_per_tenant: int = Field(default=400, gt=0)
    max_streams_per_person: int = Field(default=100, gt=0)
    max_connections: int = Field(default=4_096, gt=0)
    head_timeout_s: float = Field(default=10.0, gt=0)
    body_timeout_s: float = Field(default=20.0, gt=0)
    body_min_bytes_per_s: int = Field(default=16_384, gt=0)
    max_body_bytes_held: int = Field(default=64 * 1024 * 1024, ge=bounds.MAX_BLOB_BYTES)
    max_body_bytes_held_per_tenant: int = Field(default=40 * 1024 * 1024, ge=bounds.MAX_BLOB_BYTES)
    max_body_bytes_held_per_person: int = Field(default=24 * 1024 * 1024, ge=bounds.MAX_BLOB_BYTES)
    write_timeout_s: float = Field(default=30.0, gt=0)
    tenants_file: Path | None = None
    running_tasks: int = Field(default=256, ge=0, le=bounds.MAX_RUNNING_TASKS)
    edge_replicas: int = Field(default=1, gt=0, le=1_000)
