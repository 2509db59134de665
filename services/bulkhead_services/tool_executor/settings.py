"""Knobs of tool_executor. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

import importlib.util
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bulkhead.runtime.settings import ServiceSettings, WebhookEvents
from bulkhead_services.tool_executor.credentials.references import Credential, Vault


def _policy_dir() -> Path:
    """The mesh's own policies, found without an import: they are data of bulkhead_infra, wherever that is installed."""
    spec = importlib.util.find_spec("bulkhead_infra")
    places = (spec.submodule_search_locations if spec is not None else None) or ["."]
    return Path(places[0]) / "policy"


POLICY_DIR = _policy_dir()


class Webhook(BaseModel):
    """A tenant's webhook: its URL, and the file of the secret that signs notices (read at each try)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2000)
    secret_file: str = Field(min_length=1, max_length=1000)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # Raises ValueError where it is none.
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
            raise ValueError("must be an https URL without credentials, e.g. https://hooks.example.org/bulkhead")
        if any(character.isspace() or not character.isprintable() or character == "\\" for character in url):
            raise ValueError("has blanks, control characters or backslashes in it")
        return url


class Settings(ServiceSettings):
    """Lists are JSON, e.g. BULKHEAD_HTTP_ALLOW_HOSTS='["example.org", "api.example.org:8443"]'.

    http_allow_hosts: what http_get may reach; `host` means ports 80 and 443, `host:port` that port alone.
    http_allow_private_hosts: those of them that may resolve to private or loopback addresses.
    counter_url: base of the tests' counter; without it the counter tools do not exist.
    packs: packages with further tools (bulkhead.tools.packs). tool_settings: a JSON object of the settings that their
    tools `require`; each tool gets those that its row names.
    tool_credentials: by name, where the credentials lie that tools declare, as
    '{"github": {"file": "/run/secrets/{tenant}/github"}}' (docs/how-to/credentials-of-tools.md). vault: the Vault for
    those that lie there, as '{"address": "https://...", "token_file": "/..."}'.
    mcp_file: MCP servers, whose pinned tools are tools of the mesh; agents_file: remote A2A agents, each pinned one a
    tool. Both are read again when they change.
    tool_places: how many async tools may run at the same time here; tool_processes: how many plain ones (`def run`),
    each in a process of its own. Of four or more, one tenant has three quarters at most. slots: calls that are taken up
    at once, including those that wait for a place; far more than places, so that one tenant cannot fill them.
    tool_memory_mib, tool_disk_mib: what one plain tool's process, with all that it starts, may take of either.
    tool_folders: folders that plain tools may read and write beside their own, by tool, as '{"report": ["/srv/data"]}'.
    tool_container_image: image for tools that ask for `container`; it holds Python and this code (the image of
    tool_executor does). run_python, run_wasm: whether these tools exist, which run code that a model wrote.
    tool_blocks_s: an async tool that has not let go of the process for so long is interrupted.
    tenants_file: where A2A push notifications of each tenant may go (`push` in its row), read again when it changes;
    without it there are none.
    policy_dir: the folder of each tenant's <tenant>.cedar, and of a default.cedar in place of the one that ships, read
    once at start.
    approval_ttl_s: so long people may take to approve a call; its task may leave less (approval_wait_ms).
    webhooks: by tenant, where budget's notices go, as '{"acme": {"url": "https://...", "secret_file": "/..."}}'.
    webhook_events: by tenant, events that are posted to its webhook as CloudEvents, as '{"acme": ["task.ended"]}'; the
    gateway needs the same.
    webhook_private_hosts: those of their hosts (`host` or `host:port`) that may be private or loopback, and plain http.
    """

    http_allow_hosts: tuple[str, ...] = ()
    http_allow_private_hosts: tuple[str, ...] = ()
    counter_url: str = ""
    packs: tuple[str, ...] = ()
    tool_settings: dict[str, str] = Field(default={}, repr=False)
    tool_credentials: dict[str, Credential] = Field(default={}, repr=False)
    vault: Vault | None = Field(default=None, repr=False)
    mcp_file: Path | None = None
    agents_file: Path | None = None
    webhooks: dict[str, Webhook] = Field(default={}, repr=False)
    webhook_events: WebhookEvents = {}
    webhook_private_hosts: tuple[str, ...] = ()
    tenants_file: Path | None = None
    policy_dir: Path = POLICY_DIR
    approval_ttl_s: int = Field(default=86_400, ge=1, le=604_800)
    slots: int = 1_024
    tool_places: int = Field(default=96, ge=1, le=1_024)
    tool_processes: int = Field(default=8, ge=1, le=64)
    tool_memory_mib: int = Field(default=512, ge=64, le=65_536)
    tool_disk_mib: int = Field(default=64, ge=1, le=65_536)
    tool_folders: dict[str, tuple[str, ...]] = {}
    tool_container_image: str = ""
    run_python: bool = False
    run_wasm: bool = False
    tool_blocks_s: float = Field(default=5.0, ge=0.1, le=600)
    retry_backoff_s: float = Field(default=0.2, ge=0, le=10)

    def start_problems(self) -> list[str]:
        """See ServiceSettings."""
        missing = sorted(set(self.webhook_events) - set(self.webhooks))
        way = "name its URL and secret in BULKHEAD_WEBHOOKS, or take it out of BULKHEAD_WEBHOOK_EVENTS"
        return [f"{tenant} is to be told events and has no webhook: {way}" for tenant in missing]

    def needed_modules(self) -> tuple[str, ...]:
        """The SDKs of MCP and A2A, of which each is seconds of a busy core to import, where they are used."""
        of_files = {"mcp": self.mcp_file, "a2a": self.agents_file}
        return tuple(f"bulkhead_services.tool_executor.{name}.tools" for name, file in of_files.items() if file)

    def configured_names(self) -> frozenset[str]:
        """Names of the settings that tools may require and that are set."""
        own_settings = {"http_allow_hosts": self.http_allow_hosts, "counter_url": self.counter_url}
        code = {"run_python": self.run_python, "run_wasm": self.run_wasm}
        return frozenset(name for name, value in (own_settings | code | self.tool_settings).items() if value)
