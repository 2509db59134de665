"""Knobs of tool_executor. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

from pydantic import Field

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Lists are JSON, e.g. BULKHEAD_HTTP_ALLOW_HOSTS='["example.org", "api.example.org:8443"]'.

    http_allow_hosts: what http_get may reach; `host` means ports 80 and 443, `host:port` that port alone.
    http_allow_private_hosts: those of them that may resolve to private or loopback addresses.
    counter_url: base of the tests' counter; without it the counter tools do not exist.
    packs: packages with further tools (bulkhead.packs). tool_settings: a JSON object of what their tools `require`;
    each tool gets what its row names.
    """

    http_allow_hosts: tuple[str, ...] = ()
    http_allow_private_hosts: tuple[str, ...] = ()
    counter_url: str = ""
    packs: tuple[str, ...] = ()
    tool_settings: dict[str, str] = Field(default={}, repr=False)
    retry_backoff_s: float = Field(default=0.2, ge=0, le=10)

    def configured(self) -> frozenset[str]:
        """Names of the settings that tools may require and that are set."""
        found = {"http_allow_hosts": self.http_allow_hosts, "counter_url": self.counter_url}
        return frozenset(name for name, value in (found | self.tool_settings).items() if value)
