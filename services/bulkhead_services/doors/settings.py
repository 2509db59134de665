"""Settings of doors, read from the environment (prefix BULKHEAD_)."""

from pathlib import Path

from pydantic import Field

from bulkhead.callers.authentication import CallerSettings
from bulkhead_contracts import bounds
from bulkhead_contracts.types import Name


class Settings(CallerSettings):
    """http_port 0 takes a free port, written to http_file as {"host", "port"}.

    allowed_hosts: names under which clients may come to /mcp and /a2a, and from whose pages; beside them addresses,
    and names without a dot. Where there are none and http_host is not of this machine, any.
    public_url: scheme and host under which clients come, where a proxy stands before the doors: cards and metadata name
    it. card_key_file: private key in PEM (P-256 or Ed25519) that signs agent cards, read at the start.
    api_keys_file, jwt_*: as the gateway has them. gateway_url: where the gateway's HTTP is, for A2A and for the tools
    by which agents submit and watch tasks; without it there are none. tenants_file: the most that a task of each tenant
    may have. models: names that agents are shown in place of all that the
    model gateway tells; others may be asked for, too. run_deadline_s: of a run, unless its
    caller or its tenant says less. idle_s: a run without a call for so long ends; no less than call_timeout_s.
    call_timeout_s: of one model call. hold_s: so long a call waits in place that a halt, a ceiling or a breaker holds
    back, before it is refused. open_wait_s: so long a call waits for its run to begin. warning_notes: the model of an
    agent that seems to loop is told so in a system message, once for each warning; X-Bulkhead-Notes: off leaves it
    away. abandon_s: so long a call goes on whose client has gone, for a retry; then its provider is cancelled.
    step_silent_s: a delegated step whose holder is silent for so long goes to the next one. output_tokens: of a call
    that names no bound. max_calls*: under way at one replica. max_step_polls*: requests for a step that wait there.
    head_timeout_s, body_*, write_timeout_s, max_connections,
    max_body_bytes_held*: as the gateway has them.
    """

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8090, ge=0, le=65535)
    http_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    public_url: str = Field(default="", pattern=r"^(https?://[A-Za-z0-9.:\[\]-]{1,253})?$")
    card_key_file: Path | None = None
    tenants_file: Path | None = None
    gateway_url: str = ""
    models: tuple[Name, ...] = ()
    run_deadline_s: float = Field(default=3_600.0, gt=0, le=bounds.MAX_TASK_DEADLINE_MS / 1000)
    idle_s: float = Field(default=600.0, gt=0, le=86_400)
    call_timeout_s: float = Field(default=300.0, gt=0, le=3_600)
    hold_s: float = Field(default=30.0, ge=0, le=3_600)
    open_wait_s: float = Field(default=10.0, gt=0, le=300)
    warning_notes: bool = True
    abandon_s: float = Field(default=2.0, ge=0, le=3_600)
    step_silent_s: float = Field(default=15.0, gt=0, le=3_600)
    output_tokens: int = Field(default=4_096, gt=0, le=1_000_000)
    max_calls: int = Field(default=1_000, gt=0)
    max_calls_per_tenant: int = Field(default=400, gt=0)
    max_calls_per_person: int = Field(default=200, gt=0)
    max_step_polls: int = Field(default=2_000, gt=0)
    max_step_polls_per_tenant: int = Field(default=200, gt=0)
    max_connections: int = Field(default=4_096, gt=0)
    head_timeout_s: float = Field(default=10.0, gt=0)
    body_timeout_s: float = Field(default=20.0, gt=0)
    body_min_bytes_per_s: int = Field(default=16_384, gt=0)
    max_body_bytes_held: int = Field(default=64 * 1024 * 1024, ge=bounds.MAX_ASKED_BYTES)
    max_body_bytes_held_per_tenant: int = Field(default=48 * 1024 * 1024, ge=bounds.MAX_ASKED_BYTES)
    max_body_bytes_held_per_person: int = Field(default=32 * 1024 * 1024, ge=bounds.MAX_ASKED_BYTES)
    write_timeout_s: float = Field(default=30.0, gt=0)
